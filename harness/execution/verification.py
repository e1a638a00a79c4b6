"""Verifies a bundle: records that have to agree with themselves first, then trials that are made again.

A repetition runs in a store of its own, which is thrown away. It is the same to the last digit, within the
noise of the trial (the paired test over its images does not tell the two apart at 5 %), or different.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError, one_line
from harness.execution.ensure import ensure
from harness.execution.schedulers.inline import InlineScheduler
from harness.planning.expansion import build_plan
from harness.planning.plan import Plan
from harness.reporting.bundles import Bundle
from harness.reporting.consistency import Known, claimed_suite, findings, is_of
from harness.reporting.records import records_of
from harness.reporting.verdicts import DIFFERENT, INCONSISTENT, NOISE, SAME, UNVERIFIABLE
from harness.store import open_store
from results.grouping import Row
from results.ranking import compared
from results.record import Record
from results.statistics import SIGNIFICANT_BELOW
from tasks.base import DataError

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Verdict:
    """What is known of one trial."""

    record: Record
    verdict: str
    why: str = ""


def verified(bundle: Bundle, known: Known, count: int, seed: int, console: Console) -> Iterator[Verdict]:
    """The verdicts on all that is inconsistent or cannot be checked, then on `count` trials made again.

    Those are drawn by `seed` from the trials with a result that can be repeated here.
    """
    found = findings(bundle, known)
    by_trial = {record.trial: record for record in bundle.records}
    able = []
    for trial, record in sorted(by_trial.items()):
        if found[trial].faults:
            yield Verdict(record, INCONSISTENT, "; ".join(found[trial].faults))
        elif record.status != "ok":
            yield Verdict(record, UNVERIFIABLE, f"it has no result: {record.reason}")
        elif found[trial].doubts:
            yield Verdict(record, UNVERIFIABLE, "; ".join(found[trial].doubts))
        else:
            able.append(record)
    for record in random.Random(seed).sample(able, min(count, len(able))):
        yield repeated(record, known, console)


def repeated(record: Record, known: Known, console: Console) -> Verdict:
    """One trial made again from nothing, beside what its record says."""
    try:
        return judged(record, made_again(record, known, console))
    except (HarnessError, DataError, ValueError) as error:
        return Verdict(record, UNVERIFIABLE, one_line(error))


def made_again(record: Record, known: Known, console: Console) -> Record:
    """The record of a trial that was made again; raises HarnessError, DataError or ValueError."""
    with tempfile.TemporaryDirectory(prefix="harness-verify-") as folder:
        context = replace(known.context, store=Path(folder))
        plan = build_plan(claimed_suite(record), context, known.weights_sha256)
        own = tuple(t for t in plan.trials if t.method == "fp32" or is_of(t, record))
        plan, store = Plan(plan.suite, own, plan.stages), open_store(context.store).create()
        ensure(plan.missing(store), context, store, InlineScheduler(), console)
        return next(r for r, t in zip(records_of(plan, store), own, strict=True) if is_of(t, record))


def judged(record: Record, ours: Record) -> Verdict:
    """What a repetition says of a record."""
    if ours.status != "ok":
        return Verdict(record, UNVERIFIABLE, f"the repetition gave nothing: {ours.reason}")
    parts = ("metrics", "outcomes", "scores", "samples_digest", "images")
    if all(getattr(record, name) == getattr(ours, name) for name in parts):
        return Verdict(record, SAME)
    test = compared(Row((record,)), Row((ours,)))
    told, here = (r.metrics.get(record.metric, float("nan")) for r in (record, ours))
    said = f"{record.metric} {told:.2f}, here {here:.2f}"
    if test is None:
        return Verdict(record, DIFFERENT, f"{said}, on other images")
    return Verdict(
        record, NOISE if test.p_value >= SIGNIFICANT_BELOW else DIFFERENT, f"{said}, p = {test.p_value:.2g}"
    )
