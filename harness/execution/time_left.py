"""How long a run still takes, by what its stages took on this store and how far the running ones are."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.execution.stage_queue import StageQueue
from harness.stages.base import Stage

_NEAR = 1000
"""Stages whose order and parents are looked at in an estimate."""
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
    """Estimates the rest of a run from the stages that were seen on this store, before and in this run.

    The next `_NEAR` open stages are scheduled one by one. Those further on count as work of their kinds that
    all slots share: nobody sees the difference, and an estimate costs the same however long the run is.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        timings: Mapping[str, float],
        slots: int,
        device: str,
    ) -> None:
        """`slots` is how many stages are expected to run at once; what is seen corrects it."""
        self._open = {stage.key: stage for stage in stages}
        self._names = {key: _Name(one.kind, one.timing_name(device)) for key, one in self._open.items()}
        self._counts = Counter(self._names.values())
        """How many open stages have each name."""
        self._queue = StageQueue(stages)
        self._timings = dict(timings)
        self._device = device
        self._slots = max(1, slots)
        self._running: dict[str, _Pace] = {}
        self.seen: dict[str, float] = {}
        """New timings of this run, for the store."""

    def started(self, stage: Stage) -> None:
        """Note a stage that a scheduler started; one that leaves ready stages waiting has no more room."""
        self._running[stage.key] = _Pace()
        self._queue.start(stage.key)
        is_full = self._queue.first_ready() is not None
        self._slots = len(self._running) if is_full else max(self._slots, len(self._running))

    def follow(self, stage: Stage, elapsed: float, step: int = 0, total: int = 0) -> None:
        """Note how far a running stage is after so many seconds; `total` 0 where it does not say."""
        self._running[stage.key] = self._running.get(stage.key, _Pace()).follows(elapsed, step, total)

    def ended(self, stage: Stage, seconds: float, done: bool) -> None:
        """Note a stage that ended; only one that is `done` says how long such a stage takes."""
        if self._open.pop(stage.key, None) is not None:
            self._counts[self._names[stage.key]] -= 1
        self._running.pop(stage.key, None)
        self._queue.end(stage.key)
        if done:
            self.seen[self._name(stage).text] = self._timings[self._name(stage).text] = seconds

    def left(self) -> Left | None:
        """What the open stages take, run as a scheduler would; None while nothing is known of any of them."""
        rest = {key: self._rest_of(self._open[key]) for key in self._running if key in self._open}
        known = dict(self._timings)
        for key, seconds in rest.items():
            if seconds is not None:
                known[self._names[key].text] = self._running[key].elapsed + seconds
        expected = _Expected(known)
        near = {key: self._open[key] for key in (*rest, *itertools.islice(self._open, _NEAR))}
        taking = {key: rest[key] if key in rest else expected(self._names[key]) for key in near}
        far = Counter({name: count for name, count in self._counts.items() if count > 0})
        far -= Counter(self._names[key] for key in near)
        far_taking = {name: expected(name) for name in far}
        everything = [*taking.values(), *far_taking.values()]
        if everything and all(seconds is None for seconds in everything):
            return None
        work = sum(count * (far_taking[name] or 0.0) for name, count in far.items())
        seconds = self._simulated(near, {key: value or 0.0 for key, value in taking.items()}, work)
        return Left(seconds, None not in everything)

    def expected(self, stage: Stage) -> float | None:
        """Seconds a stage of this name took last, else the mean of its kind, else None."""
        return _Expected(self._timings)(self._name(stage))

    def _name(self, stage: Stage) -> _Name:
        return self._names.get(stage.key) or _Name(stage.kind, stage.timing_name(self._device))

    def _rest_of(self, stage: Stage) -> float | None:
        """Seconds that a running stage takes yet; None where neither the store nor its own steps tell."""
        pace, expected = self._running[stage.key], self.expected(stage)
        if expected is None:
            return None if pace.left is None else max(_LEAST_SECONDS, pace.left)
        by_store, late = expected - pace.elapsed, pace.elapsed - expected
        if pace.left is None:  # a stage that is late and silent is expected to be as late again
            return max(_LEAST_SECONDS, by_store, late)
        if self._name(stage).text in self._timings and pace.left < by_store:
            return max(_LEAST_SECONDS, by_store)  # the part may end soon, and another follow
        trust = max(pace.share, min(1.0, pace.elapsed / expected)) if expected > 0 else 1.0
        return max(_LEAST_SECONDS, (1 - trust) * max(0.0, by_store) + trust * pace.left)

    def _simulated(self, near: Mapping[str, Stage], seconds: Mapping[str, float], far_work: float) -> float:
        """When the last open stage ends if as many run at once as there are slots, each after its parents.

        `far_work` is the seconds of the stages that are not near, which fill the slots as they become free.
        """
        queue, running = StageQueue(near.values()), []
        for key in near:
            if key in self._running:
                queue.start(key)
                running.append((seconds[key], key))
        heapq.heapify(running)
        ends: deque[float] = deque(maxlen=self._slots)
        now = 0.0
        while True:
            while len(running) < self._slots and (stage := queue.first_ready()) is not None:
                queue.start(stage.key)
                heapq.heappush(running, (now + seconds[stage.key], stage.key))
            if not running:
                return max(now, (far_work + sum(ends)) / self._slots) if far_work else now
            now, key = heapq.heappop(running)
            ends.append(now)
            queue.end(key)


def expectation(timings: Mapping[str, float], device: str) -> Callable[[Stage], float | None]:
    """Seconds that a stage took last on that kind of device, else the mean of its kind, else None."""
    expected = _Expected(timings)
    return lambda stage: expected(_Name(stage.kind, stage.timing_name(device)))


class _Name(NamedTuple):
    """Stages of one name take about as long as each other, and those of one kind are somewhat alike."""

    kind: str
    text: str


class _Expected:
    """Name -> the seconds of such a stage, by what is known; each kind is averaged once."""

    def __init__(self, known: Mapping[str, float]) -> None:
        self._known = known
        self._means: dict[str, float | None] = {}

    def __call__(self, name: _Name) -> float | None:
        if name.text in self._known:
            return self._known[name.text]
        if name.kind not in self._means:
            same = [seconds for text, seconds in self._known.items() if text.startswith(f"{name.kind}:")]
            self._means[name.kind] = sum(same) / len(same) if same else None
        return self._means[name.kind]
