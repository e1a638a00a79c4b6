"""The story of one run: references first, the full-precision gate, then everything that is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.execution.full_precision_gate import full_precision_gate
from harness.execution.progress_view import RunView
from harness.execution.schedulers.base import Scheduler
from harness.planning.session import Session, cores
from harness.reporting.records import records_of
from harness.stages.base import RunContext, Stage, StageResult
from harness.stages.facts import evaluation_facts
from harness.store import Store
from results.record import Record


@dataclass(frozen=True)
class RunOutcome:
    """What a run leaves: a record per trial and what the reader should know."""

    records: tuple[Record, ...]
    notes: tuple[str, ...]
    stages_run: int
    stages_cached: int

    @property
    def all_good(self) -> bool:
        """Whether every trial has a result."""
        return all(record.status == "ok" for record in self.records)


def run_session(
    session: Session, scheduler: Scheduler, console: Any, *, allow_fp_mismatch: bool = False
) -> RunOutcome:
    """Run what is missing and gather the records; the scheduler is used only if anything is missing.

    Raises UsageError when weights do not load or do not have the accuracy they should.
    """
    session.store.create()
    missing = session.plan.missing(session.store)
    _say_damaged(session, missing, console)
    notes = list(session.notes)
    cached = len(session.plan.stages) - len(missing)
    reference_keys = {stage.key for stage in session.plan.references().values()}
    first = [stage for stage in missing if stage.key in reference_keys]
    rest = [stage for stage in missing if stage.key not in reference_keys]
    if first:
        run_stages(first, session.context, session.store, scheduler, console)
    notes += _gate(session, allow_fp_mismatch)
    if rest:
        run_stages(rest, session.context, session.store, scheduler, console, cached)
    records = records_of(session.plan, session.store)
    return RunOutcome(tuple(records), tuple(notes), len(missing), cached)


def run_stages(
    stages: Sequence[Stage],
    context: RunContext,
    store: Store,
    scheduler: Scheduler,
    console: Any,
    cached: int = 0,
) -> dict[str, StageResult]:
    """Run stages under a live view; how each ended, by key."""
    slots = max(1, cores() // context.threads)
    with RunView(stages, cached, store, slots, console) as view:
        try:
            return scheduler.run(stages, context, view.on_event)
        finally:
            store.add_timings(view.time_left.seen)


def _gate(session: Session, allow_fp_mismatch: bool) -> list[str]:
    """Notes about the full-precision rows; raises UsageError when one cannot be trusted."""
    from backbones import SPECS

    notes, faults = [], []
    for backbone, stage in session.plan.references().items():
        failure = session.store.failure(stage.key)
        if failure is not None and not session.store.holds(stage.key):
            faults.append(f"{backbone}: the full-precision evaluation failed: {failure['reason']}")
            continue
        result = full_precision_gate(SPECS[backbone], evaluation_facts(session.store, stage.key))
        if not result.passed and not allow_fp_mismatch:
            faults.append(result.message)
        elif result.message:
            notes.append(result.message)
    if faults:
        raise UsageError.of(faults)
    return notes


def _say_damaged(session: Session, missing: Sequence[Stage], console: Any) -> None:
    for stage in missing:
        if session.store.is_damaged(stage.key):
            console.print(f"artifact {stage.key} ({stage.label}) is damaged and is made anew")
