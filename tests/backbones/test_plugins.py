"""Entry points of a group: loaded ones are given, a broken one warns."""

from __future__ import annotations

import importlib.metadata

import pytest

from backbones.plugins import entry_points_of


@pytest.fixture
def installed(monkeypatch):
    """Install entry points, given as name -> value, for the rest of a test."""

    def install(**values: str) -> None:
        points = [importlib.metadata.EntryPoint(name, value, "some.group") for name, value in values.items()]
        monkeypatch.setattr(
            importlib.metadata, "entry_points", lambda group: [p for p in points if p.group == group]
        )

    return install


def test_every_entry_point_of_the_group_is_loaded(installed):
    installed(join="posixpath:join", split="posixpath:split")
    import posixpath

    assert dict(entry_points_of("some.group")) == {"join": posixpath.join, "split": posixpath.split}
    assert list(entry_points_of("other.group")) == []


def test_a_broken_one_warns_and_the_others_are_loaded(installed):
    installed(broken="no_such_package:thing", join="posixpath:join")
    with pytest.warns(UserWarning, match="no_such_package:thing is skipped: ModuleNotFoundError"):
        assert [name for name, _ in entry_points_of("some.group")] == ["join"]
