"""What a running stage says reaches the store at a bearable rate; what it is asked reaches the stage."""

from __future__ import annotations

import itertools

import pytest

from harness.stages.base import StageStopped
from harness.stages.progress import StageProgress
from harness.store import Store, open_store


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path).create()


def test_progress_is_written_at_most_every_third_of_a_second(store, monkeypatch):
    clock = itertools.count(1000, 0.2)
    monkeypatch.setattr("time.time", lambda: next(clock))
    progress = StageProgress(store, "k")
    written = []
    for step in range(1, 7):
        progress(step, 6, {"loss": 0.5})
        said = store.progress("k")
        written.append(said and said["step"])
    assert written == [None, 2, 2, 4, 4, 6]
    assert store.progress("k") == {"step": 6, "total": 6, "losses": {"loss": 0.5}, "started": 1000}


def test_every_report_is_written_and_told(store):
    seen = []
    progress = StageProgress(store, "k", lambda: seen.append(store.reports("k")))
    progress.report(1, 10.0)
    progress.report(5, 20.0)
    assert seen == [{1: 10.0}, {1: 10.0, 5: 20.0}]


def test_a_stage_stops_only_when_it_was_asked_to(store):
    progress = StageProgress(store, "k")
    progress.stop_if_asked()
    store.ask_to_stop("k")
    with pytest.raises(StageStopped, match="the search asked it to stop"):
        progress.stop_if_asked()
