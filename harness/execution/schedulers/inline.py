"""Runs stages one after another in this process: for a debugger, a notebook, a machine without Ray."""

from __future__ import annotations

from collections.abc import Sequence

from harness.execution.schedulers.base import OnEvent, OnTick, Progression, Refill, no_refill, no_tick
from harness.stages.base import RunContext, Stage, StageResult
from harness.stages.run_stage import run_stage


class InlineScheduler:
    """One stage at a time, in plan order."""

    def run(
        self,
        stages: Sequence[Stage],
        context: RunContext,
        on_event: OnEvent,
        *,
        refill: Refill = no_refill,
        on_tick: OnTick = no_tick,
    ) -> dict[str, StageResult]:
        """See `Scheduler.run`; ticks whenever a stage reports."""
        progression = Progression(stages, on_event, refill)
        while (stage := progression.start_next()) is not None:
            progression.end(run_stage(stage, context, on_report=on_tick))
        return progression.results

    def close(self) -> None:
        """Nothing is held."""
