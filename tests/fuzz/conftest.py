"""What fuzzed inputs find: an empty folder to work in, a home of its own, the embedded digits read once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import tasks.digits
import tasks.digits_scenes
from tasks.base import Split, SplitFacts, Task


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """An empty folder to work in, a home of its own, and the embedded digits read once."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    for task in (tasks.digits.Digits, tasks.digits_scenes.DigitsScenes):
        monkeypatch.setattr(task, "facts", _read_once(task.facts))


def _read_once(facts: Callable[[Task, Split], SplitFacts]) -> Callable[[Task, Split], SplitFacts]:
    """The facts of a task that needs no folder, by split alone."""
    known: dict[Split, SplitFacts] = {}

    def found(task: Task, split: Split) -> SplitFacts:
        if split not in known:
            known[split] = facts(task, split)
        return known[split]

    return found
