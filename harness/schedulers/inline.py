"""Runs stages one after another in this process: for a debugger, a notebook, a machine without Ray."""

from __future__ import annotations

from collections.abc import Sequence

from harness.context import RunContext
from harness.plan import Stage
from harness.schedulers.base import OnEvent, Progression
from harness.stages import StageResult, run_stage


class InlineScheduler:
    """One stage at a time, in plan order."""

    def run(self, stages: Sequence[Stage], context: RunContext, on_event: OnEvent) -> dict[str, StageResult]:
        """See `Scheduler.run`."""
        progression = Progression(stages, on_event)
        while (stage := progression.start_next()) is not None:
            progression.end(run_stage(stage, context))
        return progression.results

    def close(self) -> None:
        """Nothing is held."""
