"""What a scheduler promises, and the bookkeeping every scheduler shares: which stages may run now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from harness.execution.stage_queue import Order, StageQueue, as_they_come
from harness.stages.base import RunContext, Stage, StageResult


@dataclass(frozen=True)
class Event:
    """A stage started or ended."""

    kind: Literal["started", "ended"]
    stage: Stage
    result: StageResult | None = None


OnEvent = Callable[[Event], None]
Refill = Callable[[], Sequence[Stage]]
"""Asked for further stages whenever a worker is free and nothing is ready; gives none when there is no more
work for now. The run ends when it gives none and nothing runs."""
OnTick = Callable[[], None]
"""Called often while stages run, for a driver that follows what they report in the store."""

OnNotice = Callable[[str], None]
"""Told, in a sentence, what happened to the scheduler itself and what it does about it."""


OnWait = Callable[[str], None]
"""Told what has to come up before a worker can begin a stage, for a view that says so until one does."""

OnDevice = Callable[[str], None]
"""Told on which kind of device the stages run, where the scheduler is the one to decide."""


def no_refill() -> Sequence[Stage]:
    """A Refill without further work."""
    return ()


def no_tick() -> None:
    """An OnTick that does nothing."""


def no_wait(_awaited: str) -> None:
    """An OnWait that does nothing."""


def no_device(_device: str) -> None:
    """An OnDevice that nobody asks."""


def no_notice(_sentence: str) -> None:
    """An OnNotice that nobody reads."""


@dataclass(frozen=True)
class Work:
    """What a scheduler is to run, and whom it tells about it."""

    stages: Sequence[Stage]
    """Parents before children; parents that are not among the stages are taken as done."""
    context: RunContext
    on_event: OnEvent
    refill: Refill = no_refill
    on_tick: OnTick = no_tick
    on_wait: OnWait = no_wait
    on_notice: OnNotice = no_notice
    on_device: OnDevice = no_device


class Scheduler(Protocol):
    """Runs stages; stages hand on keys, never tensors."""

    def run(self, work: Work) -> dict[str, StageResult]:
        """Run every stage after its parents and return how each ended, by key.

        A stage whose parent failed or was stopped is `skipped`.
        """
        ...

    def close(self) -> None:
        """Give back what the scheduler holds: workers, connections."""
        ...


class Progression:
    """Which stages wait, which are ready, and how the others ended."""

    def __init__(self, work: Work, order: Order = as_they_come) -> None:
        self._queue = StageQueue(work.stages, order)
        self._running: dict[str, Stage] = {}
        self._on_event = work.on_event
        self._refill = work.refill
        self.results: dict[str, StageResult] = {}

    def start_next(self) -> Stage | None:
        """The first stage whose parents are done, which runs now; None when all others wait."""
        stage = self.take_next()
        if stage is not None:
            self.begin(stage)
        return stage

    def begin(self, stage: Stage) -> None:
        """A stage that was taken has a worker now."""
        self._on_event(Event("started", stage))

    def take_next(self) -> Stage | None:
        """The first stage whose parents are done, no longer among the waiting; None when all others wait."""
        while (stage := self._queue.first_ready()) is None:
            more = self._refill()
            if not more:
                return None
            self._queue.add(more)
        self._queue.start(stage.key)
        self._running[stage.key] = stage
        return stage

    def in_order(self, stages: Iterable[Stage]) -> list[Stage]:
        """Stages that were taken, those first that go first."""
        return self._queue.in_order(stages)

    def end(self, result: StageResult) -> None:
        """Note how a stage that was begun ended; on failure all that depend on it are skipped."""
        stage = self._running.pop(result.key)
        lost = [] if result.status in ("done", "cached") else self._queue.dependents(stage.key)
        self._note(stage, result)
        for dependent in lost:
            reason = f"{stage.kind} {result.status.replace('_', ' ')}: {result.reason}"
            self._note(dependent, StageResult(dependent.key, "skipped", reason=reason))

    def _note(self, stage: Stage, result: StageResult) -> None:
        self._queue.end(stage.key)
        self.results[stage.key] = result
        self._on_event(Event("ended", stage, result))
