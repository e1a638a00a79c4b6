"""Which of the stages that may run go first: those that the most work waits for, by stored timings.

Work is counted along chains: a short link with hours behind it goes before a longer stage that ends a trial.
Where nothing is known stages go as they come.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from harness.execution.stage_queue import Order
from harness.execution.time_left import expectation
from harness.stages.base import Stage


def longest_first(timings: Mapping[str, float], device: str) -> Order:
    """The order by what such stages took on this kind of device; unknown ones count as the mean of all."""
    expected = expectation(timings, device)
    mean = statistics.fmean(timings.values()) if timings else 0.0

    def seconds(stage: Stage) -> float:
        known = expected(stage)
        return mean if known is None else known

    return lambda stages: path_seconds(stages, seconds)


def path_seconds(stages: Sequence[Stage], seconds: Callable[[Stage], float]) -> dict[str, float]:
    """Key -> seconds of the longest chain that begins with the stage; parents come before children."""
    longest: dict[str, float] = {}
    behind: defaultdict[str, float] = defaultdict(float)
    for stage in reversed(stages):
        longest[stage.key] = seconds(stage) + behind[stage.key]
        for parent in stage.awaited:
            behind[parent] = max(behind[parent], longest[stage.key])
    return longest
