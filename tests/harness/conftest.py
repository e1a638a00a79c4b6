"""Shared by the tests of the harness: the command; what one test registers is unknown to the next."""

from __future__ import annotations

import sys

import pytest

from harness.cli.main import main
from harness.stages.kinds import kind_names, unregister_kind


@pytest.fixture(autouse=True)
def _stage_kinds_stay_as_they_were():
    """Forget the kinds that the test registered."""
    before = kind_names()
    yield
    for name in set(kind_names()) - set(before):
        unregister_kind(name)


@pytest.fixture
def harness(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder; its exit status and what it wrote."""
    monkeypatch.chdir(tmp_path)

    def go(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsys.readouterr()
        return ended.value.code, written.out, written.err

    return go
