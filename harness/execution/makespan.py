"""How long a plan takes on so many workers, by what its stages are expected to take: a simulation.

Stages are started as a scheduler starts them: those with the longest chain behind them first, each as soon as
its parents are done and a worker is free. Start-up and transfers are not in it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.execution.longest_first import path_seconds
from harness.execution.stage_queue import StageQueue
from harness.stages.base import Stage


@dataclass(frozen=True)
class Makespan:
    """The outcome of a simulation, in seconds, with what no schedule can be faster than."""

    seconds: float
    work: float
    """Of all stages together."""
    slots: int
    critical_path: tuple[Stage, ...]
    """The longest chain of stages that wait for each other."""
    critical_seconds: float

    @property
    def shared_work(self) -> float:
        """Seconds if no worker were ever without a stage."""
        return self.work / self.slots


def makespan(stages: Sequence[Stage], seconds: Mapping[str, float], slots: int) -> Makespan:
    """Run the stages, parents first in the sequence, on `slots` workers; `seconds` by key."""
    behind = path_seconds(stages, lambda stage: seconds[stage.key])
    path = _critical_path(stages, behind)
    return Makespan(
        seconds=_simulated(stages, behind, seconds, slots),
        work=sum(seconds[stage.key] for stage in stages),
        slots=slots,
        critical_path=path,
        critical_seconds=sum(seconds[stage.key] for stage in path),
    )


def _simulated(
    stages: Sequence[Stage], behind: Mapping[str, float], seconds: Mapping[str, float], slots: int
) -> float:
    queue = StageQueue(stages, lambda _: behind)
    running: list[tuple[float, str]] = []
    now = 0.0
    while True:
        while len(running) < slots and (stage := queue.first_ready()) is not None:
            queue.start(stage.key)
            heapq.heappush(running, (now + seconds[stage.key], stage.key))
        if not running:
            return now
        now, key = heapq.heappop(running)
        queue.end(key)


def _critical_path(stages: Sequence[Stage], behind: Mapping[str, float]) -> tuple[Stage, ...]:
    """From the stage with the longest chain, always on to the child with the longest."""
    children: dict[str, list[Stage]] = {}
    for stage in stages:
        for parent in stage.awaited:
            children.setdefault(parent, []).append(stage)
    path: list[Stage] = []
    here: Sequence[Stage] = stages
    while here:
        path.append(max(here, key=lambda stage: behind[stage.key]))
        here = children.get(path[-1].key, ())
    return tuple(path)
