"""Timings of stages in one file that several runs add to."""

from __future__ import annotations

import threading

import pytest

from harness.store.timings import TimingsFile


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"b": "x", "c": null, "d": [1], "e": NaN}'])
def test_a_damaged_file_counts_as_no_timings_and_is_replaced(tmp_path, content):
    timings = TimingsFile(tmp_path)
    (tmp_path / "timings.json").write_text(content)
    assert timings.timings() == {}
    timings.add_timings({"a": 1.0})
    assert timings.timings() == {"a": 1.0}


def test_nothing_seen_writes_nothing(tmp_path):
    TimingsFile(tmp_path).add_timings({})
    assert list(tmp_path.iterdir()) == []


def test_runs_that_add_at_once_lose_nothing(tmp_path):
    def add(name: str) -> None:
        for step in range(10):
            TimingsFile(tmp_path).add_timings({f"{name}{step}": 1.0})

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(TimingsFile(tmp_path).timings()) == 40


@pytest.mark.parametrize("text", ["[1]", "5", "{", '{"a": "1", "b": 2.5, "c": NaN, "d": true}'])
def test_what_is_no_timing_is_left_out(tmp_path, text):
    file = TimingsFile(tmp_path)
    (tmp_path / "timings.json").write_text(text)
    assert set(file.timings()) <= {"b"}
    file.add_timings({"e": 1.0})
    assert file.timings()["e"] == 1.0
