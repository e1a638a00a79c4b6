"""How long a run still takes, by what its stages took on this store and how far the running ones are."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.stages.base import Stage

_LEAST_SECONDS = 1.0
"""What a running stage takes yet at least: nothing that runs is over."""


@dataclass(frozen=True)
class Left:
    """What is expected of the rest of a run."""

    seconds: float
    is_whole: bool
    """Whether every open stage is in it; else some of them may take any time beyond it."""


@dataclass(frozen=True)
class _Pace:
    """How far a running stage is; its steps count one part of it, after which another may follow."""

    elapsed: float = 0.0
    step: int = 0
    total: int = 0
    part_began: float = 0.0
    """Seconds after the stage's own start, at `part_step`."""
    part_step: int = 0

    def follows(self, elapsed: float, step: int, total: int) -> _Pace:
        """The pace after a newer look; a step that fell or another total is another part."""
        if total == self.total and step >= self.step:
            return _Pace(elapsed, step, total, self.part_began, self.part_step)
        # A part that is under way at the very first look is timed from there.
        return _Pace(elapsed, step, total, self.elapsed, 0 if elapsed > self.elapsed else step)

    @property
    def share(self) -> float:
        """Part of the steps that is done, 0 to 1."""
        return min(1.0, self.step / self.total) if self.total else 0.0

    @property
    def left(self) -> float | None:
        """Seconds for the other steps at this pace; None before the first of them."""
        done = self.step - self.part_step
        return (self.elapsed - self.part_began) * (self.total - self.step) / done if done > 0 else None


class TimeLeft:
    """Estimates the rest of a run from the stages that were seen on this store, before and in this run."""

    def __init__(
        self,
        stages: Sequence[Stage],
        timings: Mapping[str, float],
        slots: int,
        device: str,
        later: Sequence[Stage] = (),
    ) -> None:
        """`later` stages count, but a scheduler gets them when all `stages` have ended.

        `slots` is how many stages are expected to run at once; what is seen corrects it.
        """
        self._open = {stage.key: stage for stage in (*stages, *later)}
        self._later = {stage.key for stage in later}
        self._timings = dict(timings)
        self._device = device
        self._slots = max(1, slots)
        self._running: dict[str, _Pace] = {}
        self.seen: dict[str, float] = {}
        """New timings of this run, for the store."""

    def started(self, stage: Stage) -> None:
        """Note a stage that a scheduler started; one that leaves ready stages waiting has no more room."""
        self._running[stage.key] = _Pace()
        is_full = any(self._is_ready(other) for other in self._open.values())
        self._slots = len(self._running) if is_full else max(self._slots, len(self._running))

    def follow(self, stage: Stage, elapsed: float, step: int = 0, total: int = 0) -> None:
        """Note how far a running stage is after so many seconds; `total` 0 where it does not say."""
        self._running[stage.key] = self._running.get(stage.key, _Pace()).follows(elapsed, step, total)

    def ended(self, stage: Stage, seconds: float, done: bool) -> None:
        """Note a stage that ended; only one that is `done` says how long such a stage takes."""
        self._open.pop(stage.key, None)
        self._running.pop(stage.key, None)
        if done:
            self.seen[self._name(stage)] = self._timings[self._name(stage)] = seconds

    def left(self) -> Left | None:
        """What the open stages take, run as a scheduler would; None while nothing is known of any of them."""
        rest = {key: self._rest_of(self._open[key]) for key in self._running if key in self._open}
        known = dict(self._timings)
        for key, seconds in rest.items():
            if seconds is not None:
                known[self._name(self._open[key])] = self._running[key].elapsed + seconds
        expected = {
            key: rest[key] if key in rest else self._expected(stage, known)
            for key, stage in self._open.items()
        }
        if expected and all(seconds is None for seconds in expected.values()):
            return None
        seconds = self._simulated({key: value or 0.0 for key, value in expected.items()})
        return Left(seconds, None not in expected.values())

    def expected(self, stage: Stage) -> float | None:
        """Seconds a stage of this name took last, else the mean of its kind, else None."""
        return self._expected(stage, self._timings)

    def _name(self, stage: Stage) -> str:
        return stage.timing_name(self._device)

    def _expected(self, stage: Stage, timings: Mapping[str, float]) -> float | None:
        if (name := self._name(stage)) in timings:
            return timings[name]
        same = [seconds for name, seconds in timings.items() if name.startswith(f"{stage.kind}:")]
        return sum(same) / len(same) if same else None

    def _rest_of(self, stage: Stage) -> float | None:
        """Seconds that a running stage takes yet; None where neither the store nor its own steps tell."""
        pace, expected = self._running[stage.key], self.expected(stage)
        if expected is None:
            return None if pace.left is None else max(_LEAST_SECONDS, pace.left)
        by_store, late = expected - pace.elapsed, pace.elapsed - expected
        if pace.left is None:  # a stage that is late and silent is expected to be as late again
            return max(_LEAST_SECONDS, by_store, late)
        if self._name(stage) in self._timings and pace.left < by_store:
            return max(_LEAST_SECONDS, by_store)  # the part may end soon, and another follow
        trust = max(pace.share, min(1.0, pace.elapsed / expected)) if expected > 0 else 1.0
        return max(_LEAST_SECONDS, (1 - trust) * max(0.0, by_store) + trust * pace.left)

    def _is_ready(self, stage: Stage) -> bool:
        if stage.key in self._running or stage.key in self._later:
            return False
        return not any(parent in self._open for parent in stage.awaited)

    def _simulated(self, seconds: Mapping[str, float]) -> float:
        """When the last open stage ends if as many run at once as there are slots, each after its parents."""
        order = {key: place for place, key in enumerate(self._open)}
        awaited = {key: sum(p in order for p in stage.awaited) for key, stage in self._open.items()}
        children: dict[str, list[str]] = {key: [] for key in order}
        for key, stage in self._open.items():
            for parent in stage.awaited:
                if parent in children:
                    children[parent].append(key)
        running = [(seconds[key], key) for key in self._running if key in order]
        heapq.heapify(running)
        ready = [order[key] for key, count in awaited.items() if not count and key not in self._running]
        keys, now = list(self._open), 0.0
        while running or ready:
            while ready and len(running) < self._slots:
                key = keys[heapq.heappop(ready)]
                heapq.heappush(running, (now + seconds[key], key))
            now, key = heapq.heappop(running)
            for child in children[key]:
                awaited[child] -= 1
                if not awaited[child]:
                    heapq.heappush(ready, order[child])
        return now
