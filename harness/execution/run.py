"""The story of one run: references and first images, the full-precision gate, then all that is missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backbones import SPECS
from harness.errors import UsageError
from harness.execution.ensure import Gate, ensure
from harness.execution.full_precision_gate import full_precision_gate
from harness.execution.schedulers.base import Scheduler
from harness.planning.plan import Plan, Trial, needs_of, stored_plan
from harness.planning.session import Session
from harness.reporting.records import TrialRecords
from harness.stages.base import Stage
from harness.stages.facts import evaluation_facts
from harness.stages.kinds import is_made
from results.record import Record

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class RunOutcome:
    """What a run leaves: a record per trial and what the reader should know."""

    records: tuple[Record, ...]
    notes: tuple[str, ...]
    stages_run: int
    stages_cached: int
    tracebacks: tuple[Path, ...] = ()
    """Where the code failed, a file for every stage that did."""

    @property
    def all_good(self) -> bool:
        """Whether every trial has a result."""
        return all(record.status == "ok" for record in self.records)


def run_session(
    session: Session,
    scheduler: Scheduler,
    console: Console,
    *,
    allow_fp_mismatch: bool = False,
    on_record: Callable[[Record], None] | None = None,
) -> RunOutcome:
    """Run what is missing and gather the records; the scheduler is used only if anything is missing.

    `on_record` is given the record of each trial whose evaluation ends meanwhile. Raises UsageError when
    weights do not load or do not have the accuracy they should.
    """
    with session.store.in_use():
        return _run(session, scheduler, console, allow_fp_mismatch, on_record)


def _run(
    session: Session,
    scheduler: Scheduler,
    console: Console,
    allow_fp_mismatch: bool,
    on_record: Callable[[Record], None] | None,
) -> RunOutcome:
    missing = session.plan.missing(session.store)
    if missing:
        session.store.create()
    if session.store.is_writable():
        session.store.write_plan(stored_plan(session.plan))
    notes = list(session.notes)

    def check() -> None:
        notes.extend(_gate(session, allow_fp_mismatch))

    cached = len(session.plan.stages) - len(missing)
    references = {stage.key for stage in session.plan.references().values()}
    awaited = frozenset(references & {stage.key for stage in missing})
    if not awaited:
        check()
    records = TrialRecords(session.plan.trials, needs_of(session.plan), session.store)
    ensure(
        missing,
        session.context,
        session.store,
        scheduler,
        console,
        cached=cached,
        gate=Gate(awaited, check) if awaited else None,
        on_ended=None if on_record is None else _telling(session.plan, records, on_record),
    )
    left = session.plan.missing(session.store) if missing else []
    files = [session.store.traceback_file(stage.key) for stage in left]
    tracebacks = tuple(file for file in files if file)
    made = tuple(records.of(trial) for trial in session.plan.trials)
    return RunOutcome(made, tuple(notes), len(missing), cached, tracebacks)


def _telling(
    plan: Plan, records: TrialRecords, on_record: Callable[[Record], None]
) -> Callable[[Stage], None]:
    """What makes records of evaluations as they end, and hands them on."""
    trials: dict[str, list[Trial]] = defaultdict(list)
    for trial in plan.trials:
        trials[trial.evaluation].append(trial)

    def on_ended(stage: Stage) -> None:
        for trial in trials.get(stage.key, ()):
            on_record(records.of(trial))

    return on_ended


def _gate(session: Session, allow_fp_mismatch: bool) -> list[str]:
    """Notes about the full-precision rows; raises UsageError when one cannot be trusted."""
    notes: list[str] = []
    faults: list[str] = []
    for backbone, stage in session.plan.references().items():
        failure = session.store.failure(stage.key)
        if failure is not None and not is_made(stage, session.store):
            file = session.store.traceback_file(stage.key)
            where = f" (traceback: {file})" if file else ""
            faults.append(f"{backbone}: the full-precision evaluation failed: {failure['reason']}{where}")
            continue
        result = full_precision_gate(SPECS[backbone], evaluation_facts(session.store, stage.key))
        if not result.passed and not allow_fp_mismatch:
            faults.append(result.message)
        elif result.message:
            notes.append(result.message)
    if faults:
        raise UsageError.of(faults)
    return notes
