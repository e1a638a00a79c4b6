"""Signals are files that any process may read at any time, torn ones included."""

from __future__ import annotations

import pytest

from harness.store.signals import SignalFolder


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}'])
def test_damaged_signals_count_as_silence(tmp_path, content):
    signals = SignalFolder(tmp_path)
    signals.write_progress("k", {"step": 1, "total": 2})
    signals.write_reports("k", {1: 2.0})
    (tmp_path / "progress" / "k.json").write_text(content)
    (tmp_path / "reports" / "k.json").write_text(content)
    assert signals.progress("k") is None
    assert signals.reports("k") == {}


@pytest.mark.parametrize(
    "text", ["[]", "5", '{"step": "1", "total": 5}', '{"losses": 5}', "[" * 100_000, '{"x": NaN, "1": null}']
)
def test_signals_of_another_shape_count_as_silence(tmp_path, text):
    signals = SignalFolder(tmp_path)
    for folder in ("progress", "reports"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "k.json").write_text(text)
    assert signals.progress("k") is None
    assert signals.reports("k") == {}


def test_a_later_report_replaces_the_earlier_ones(tmp_path):
    signals = SignalFolder(tmp_path)
    signals.write_reports("k", {1: 2.0})
    signals.write_reports("k", {1: 2.0, 5: 3.0})
    assert signals.reports("k") == {1: 2.0, 5: 3.0}
    assert [file.name for file in (tmp_path / "reports").iterdir()] == ["k.json"]


def test_a_stage_can_be_asked_twice_and_before_it_said_anything(tmp_path):
    signals = SignalFolder(tmp_path)
    signals.ask_to_stop("k")
    signals.ask_to_stop("k")
    assert signals.is_asked_to_stop("k")
    assert signals.reports("k") == {}
