"""Stages that have not ended, and which of them may run: those that wait for none of the others.

They come in the order in which they were added, or as an order ranks them. Whatever happens to a stage costs
as much as it has children, however many others are open.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from harness.stages.base import Stage

Order: TypeAlias = "Callable[[Sequence[Stage]], Mapping[str, float]]"
"""Rank by key of stages that are added together; higher ones run first, equal ones as they came."""


def as_they_come(_stages: Sequence[Stage]) -> Mapping[str, float]:
    """The order of those who have none."""
    return {}


class StageQueue:
    """Open stages, in order; parents that are not among them are taken as done."""

    def __init__(self, stages: Iterable[Stage] = (), order: Order = as_they_come) -> None:
        self._order = order
        self._ranks: dict[str, float] = {}
        self._waiting: dict[str, Stage] = {}
        self._running: dict[str, Stage] = {}
        self._places: dict[str, int] = {}
        """Key of a waiting stage -> where it stands in the order."""
        self._children: dict[str, list[str]] = {}
        self._ready: list[tuple[float, int, str]] = []
        """A heap that holds every stage that may run; others in it are dropped when they come to its top."""
        self._counter = itertools.count()
        self.add(stages)

    def add(self, stages: Iterable[Stage]) -> None:
        """Take in further stages, in any order; those that run already are left out."""
        new = [stage for stage in stages if stage.key not in self._running]
        self._ranks.update(self._order(new))
        for stage in new:
            self._waiting[stage.key] = stage
            if stage.key not in self._places:
                self._places[stage.key] = next(self._counter)
            for parent in set(stage.awaited):
                self._children.setdefault(parent, []).append(stage.key)
        for stage in new:
            self._offer(stage.key)

    def first_ready(self) -> Stage | None:
        """The first waiting stage that may run; None when all others wait."""
        while self._ready:
            _, place, key = self._ready[0]
            if self._places.get(key) == place and self._may_run(key):
                return self._waiting[key]
            heapq.heappop(self._ready)
        return None

    def in_order(self, stages: Iterable[Stage]) -> list[Stage]:
        """Stages that were added, those first that go first."""
        return sorted(stages, key=lambda stage: -self._ranks.get(stage.key, 0.0))

    def start(self, key: str) -> None:
        """A waiting stage runs now."""
        if key in self._waiting:
            self._running[key] = self._leave(key)

    def end(self, key: str) -> None:
        """A stage, running or waiting, is no longer open; what waited for it alone may run."""
        if self._running.pop(key, None) is None and key in self._waiting:
            self._leave(key)
        for child in self._children.pop(key, ()):
            self._offer(child)

    def dependents(self, key: str) -> list[Stage]:
        """The waiting stages that cannot run without this one, in order."""
        found: dict[str, Stage] = {}
        open_ends = [key]
        while open_ends:
            for child in self._children.get(open_ends.pop(), ()):
                if child in self._waiting and child not in found:
                    found[child] = self._waiting[child]
                    open_ends.append(child)
        return sorted(found.values(), key=lambda stage: self._places[stage.key])

    def _leave(self, key: str) -> Stage:
        del self._places[key]
        return self._waiting.pop(key)

    def _offer(self, key: str) -> None:
        if key in self._waiting and self._may_run(key):
            heapq.heappush(self._ready, (-self._ranks.get(key, 0.0), self._places[key], key))

    def _may_run(self, key: str) -> bool:
        awaited = self._waiting[key].awaited
        return not any(parent in self._waiting or parent in self._running for parent in awaited)
