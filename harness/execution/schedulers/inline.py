"""Runs stages one after another in this process: for a debugger, a notebook, a machine without Ray."""

from __future__ import annotations

import dataclasses

from harness.execution.schedulers.base import Progression, Work
from harness.execution.time_limits import TimeLimits
from harness.planning.run_context import device_here
from harness.stages.base import StageResult
from harness.stages.run_stage import run_stage


class InlineScheduler:
    """One stage at a time, in plan order. There is no cluster, so an address changes nothing."""

    def __init__(self, address: str | None = None) -> None:
        pass

    def run(self, work: Work) -> dict[str, StageResult]:
        """See `Scheduler.run`; ticks whenever a stage reports."""
        context = work.context
        if context.device == "auto":
            context = dataclasses.replace(context, device=device_here())
            work.on_device(context.device)
        progression, limits = Progression(work), TimeLimits(context)
        while (stage := progression.start_next()) is not None:
            limit = limits.seconds(stage)
            progression.end(run_stage(stage, context, on_report=work.on_tick, limit=limit))
        return progression.results

    def close(self) -> None:
        """Nothing is held."""
