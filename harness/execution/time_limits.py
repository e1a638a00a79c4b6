"""How long a stage may take, and which of those under way are beyond it.

The limit is what the user said, or a generous multiple of what such stages took before.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Generic, TypeVar

from harness.stages.base import Claimant, RunContext, Stage
from harness.store import open_store

_TIMES_EXPECTED = 20
_LEAST_SECONDS = 3600.0
_LOOK_SECONDS = 0.5
"""Time between two looks at how long stages have run."""

_Task = TypeVar("_Task")


class TimeLimits:
    """The limits of a run, from the timings on its store when it starts."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._timings = open_store(context.store).timings() if context.stage_timeout is None else {}

    def seconds(self, stage: Stage) -> float | None:
        """Seconds that the stage may take; None where the user set none, or nothing is known of its like.

        What other stages of its kind took says too little: they may be a thousand times smaller.
        """
        if self._context.stage_timeout is not None:
            return self._context.stage_timeout or None
        expected = self._timings.get(stage.timing_name(self._context.device))
        return None if expected is None else max(_LEAST_SECONDS, _TIMES_EXPECTED * expected)


class Overdue(Generic[_Task]):
    """Which stages under way have passed their time limit, each told once.

    The time runs from when this process first sees that a worker makes the stage: waiting for a worker, or
    for another run that makes it, does not count.
    """

    def __init__(self, context: RunContext) -> None:
        self._limits = TimeLimits(context)
        self._claimant = context.claimant
        self._store = open_store(context.store)
        self._limit: dict[_Task, float | None] = {}
        self._begun: dict[_Task, float] = {}
        self._passed: dict[_Task, float] = {}
        self._next_look = 0.0

    def among(self, stages: Mapping[_Task, Stage]) -> list[_Task]:
        """The tasks whose stages have passed their limit since the last call."""
        now = time.monotonic()
        if now < self._next_look:
            return []
        self._next_look = now + _LOOK_SECONDS
        passed = []
        for reference, stage in stages.items():
            if reference not in self._limit:
                self._limit[reference] = self._limits.seconds(stage)
            limit = self._limit[reference]
            if limit is None or reference in self._passed or not self._is_made(reference, stage, now):
                continue
            if now - self._begun[reference] > limit:
                self._passed[reference] = limit
                passed.append(reference)
        return passed

    def limit_passed(self, reference: _Task) -> float | None:
        """The limit that the task has passed; None where it has passed none."""
        return self._passed.get(reference)

    def forget(self, reference: _Task) -> None:
        """The task has ended."""
        self._limit.pop(reference, None)
        self._begun.pop(reference, None)
        self._passed.pop(reference, None)

    def _is_made(self, reference: _Task, stage: Stage, now: float) -> bool:
        if reference not in self._begun:
            if Claimant.of(self._store.claimant(stage.key)) != self._claimant:
                return False
            self._begun[reference] = now
        return True
