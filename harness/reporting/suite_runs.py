"""The records of a suite from the runs that a store remembers: nothing is planned anew.

Neither weights nor data, plug-ins or the hub are needed, and a store that was copied elsewhere is enough.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.planning.plan import Trial, trials_of
from harness.planning.stage_builder import trial_code
from harness.reporting.records import trial_records
from harness.store import Store
from harness.store.uses import StoredPlan
from results.record import Record

_FIELD_OF = {
    "backbones": "backbone",
    "bits": "bits",
    "methods": "method",
    "engines": "engine",
    "seeds": "seed",
}
"""List of a suite -> the field of a record that holds one of its values."""


@dataclass(frozen=True)
class SuiteRecords:
    """What is known of a suite."""

    suite: str
    records: tuple[Record, ...]
    """One per trial of any run of the suite, those without a result too."""
    left_out: Mapping[str, tuple[str, ...]]
    """List of the suite, such as `backbones` -> values in it that no run of it had."""
    changed: tuple[str, ...] = ()
    """Labels of the trials with a result whose code is another one now."""
    trials: tuple[Trial, ...] = ()
    """The trials of its runs that the store remembers."""

    def remarks(self) -> tuple[str, ...]:
        """What a reader of the table has to know of how much it shows, a sentence each."""
        said = []
        left = [f"{name} {', '.join(values)}" for name, values in self.left_out.items()]
        counts = {"failed": 0, "missing": 0}
        for record in self.records:
            if record.status != "ok":
                counts["missing" if record.status == "missing" else "failed"] += 1
        without = [f"{count} of {len(self.records)} trials {kind}" for kind, count in counts.items() if count]
        if left or without:
            parts = [f"never run: {'; '.join(left)}"] * bool(left) + [", ".join(without)] * bool(without)
            said.append(f"Not all of {self.suite}: {'; '.join(parts)}.")
        if self.changed:
            said.append(
                f"The code has changed since for {len(self.changed)} of {len(self.records)} trials of "
                f"{self.suite}: these are records of the code as it was; a run makes them anew."
            )
        return tuple(said)


def suite_names_in(store: Store) -> list[str]:
    """The suites of which the store remembers a run, sorted."""
    return sorted({plan.suite for plan in store.plans()})


def suite_records(store: Store, suite: str, tracked: Iterable[Record] = ()) -> SuiteRecords:
    """Every record of a suite's runs, from the store and from the `tracked` ones of the same suite.

    A tracked record stands in for what the store has no result of, unless that is damaged. A trial without a
    result is left out where another run has one for the same work.
    """
    plans = [plan for plan in store.plans() if plan.suite == suite]
    trials: dict[str, Trial] = {}
    found: dict[tuple[str, str], Record] = {}
    for plan in plans:
        own = trials_of(plan)
        trials |= {trial.trial: trial for trial in own}
        found |= {_listed(record): record for record in trial_records(own, plan.needs, store)}
    for record in tracked:
        stored = found.get(_listed(record))
        is_damaged = stored is not None and stored.status != "ok" and store.place(record.trial).exists()
        if stored is None or (stored.status != "ok" and not is_damaged):
            found[_listed(record)] = record
    records = _without_outdone(list(found.values()))
    changed = [t.label for r in records if r.status == "ok" and (t := trials.get(r.trial)) and _is_changed(t)]
    return SuiteRecords(
        suite, tuple(records), _never_run(plans, records), tuple(changed), (*trials.values(),)
    )


def _listed(record: Record) -> tuple[str, str]:
    """What tells records of one suite apart: the trial, and the track and method that it is listed under."""
    return record.trial, f"{record.method} {record.track} {record.budget}"


def _without_outdone(records: Sequence[Record]) -> list[Record]:
    """The records without those that have no result where another run of the same work has one."""
    done = {_work(record) for record in records if record.status == "ok"}
    left: dict[str, Record] = {}
    for record in records:
        if record.status != "ok" and _work(record) not in done:
            before = left.get(_work(record))
            left[_work(record)] = record if before is None or before.status == "missing" else before
    return [r for r in records if r.status == "ok" or left.get(_work(r)) is r]


def _work(record: Record) -> str:
    """What was asked for, whatever the code, data and files that decided the key."""
    return repr([item for item in record.identity().items() if item[0] != "trial"])


def _never_run(plans: Sequence[StoredPlan], records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """What runs were narrowed away from and no other run of the suite had."""
    left: dict[str, tuple[str, ...]] = {}
    for name, of_record in _FIELD_OF.items():
        had = {str(getattr(record, of_record)) for record in records}
        gone = dict.fromkeys(str(value) for plan in plans for value in plan.left_out.get(name, ()))
        if values := tuple(value for value in gone if value not in had):
            left[name] = values
    return left


def _is_changed(trial: Trial) -> bool:
    """Whether a trial's code is another one now; where it is not known, as of a plug-in, nothing is said."""
    with contextlib.suppress(ValueError):
        return trial.code != trial_code(trial.method, trial.engine, trial.backbone, trial.task)
    return False
