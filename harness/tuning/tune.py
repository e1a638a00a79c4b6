"""The story of a search: a study opened, tries run, the best settings written and measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.execution.ensure import require, say_damaged
from harness.execution.run import RunOutcome, run_session
from harness.execution.schedulers.base import Scheduler
from harness.planning.plan import Plan, Trial
from harness.planning.request import Request
from harness.planning.session import Session, open_workbench, session_of
from harness.reporting.records import records_of
from harness.store import open_store
from harness.store.files import write_text
from harness.suites.suite import TUNED, Suite
from harness.tuning import outcome as found
from harness.tuning import studies
from harness.tuning.finalists import choose
from harness.tuning.objectives import DIRECTIONS
from harness.tuning.options import TuneOptions
from harness.tuning.ownership import Owners, asking
from harness.tuning.preparation import Preparation, fresh_seeds, prepare
from harness.tuning.search import Ended, Search, plan_of
from harness.tuning.selection import Selection
from harness.tuning.space import Space
from harness.tuning.try_log import TryLog
from harness.tuning.verdict import Verdict, verdicts
from harness.tuning.view import SearchView
from results.record import Record
from results.statistics import Spread
from results.tracking import Tracker

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from rich.console import Console


@dataclass(frozen=True)
class Tuned:
    """What the search of one method found."""

    space: Space
    study: str
    """Name of the study."""
    folder: Path
    """Where its tables, plots and best settings lie."""
    best: Mapping[str, Any] | None
    """Values of the best trial; None where no trial finished."""
    facts: Mapping[str, Any]
    """How the search went, for the record of every run that uses its settings."""
    values: tuple[float, ...] = ()
    """Value of each objective in the best trial."""
    default_values: tuple[float, ...] | None = None
    """The same for the settings before the search; None where that trial has no value."""
    front: tuple[Mapping[str, Any], ...] = ()
    """Number, values and settings of every trial on the Pareto front; empty for one objective."""
    shares: Mapping[str, Spread] = dataclasses.field(default_factory=dict)
    """Setting -> its share in the spread of the first objective; empty where too few tries finished."""
    least_for_shares: int = 0
    """Finished tries below which no share is told."""
    selection: Selection | None = None
    """How the finalists fared on further seeds; None where none were scored again."""
    seconds: float = 0.0
    """Seconds that all processes have searched."""
    trials_before: int = 0
    """Trials of the study that had ended before this process resumed it."""
    untracked: str = ""
    """Why tries are not in MLflow; empty where all are."""


def tune_method(
    request: Request, options: TuneOptions, scheduler: Scheduler, tracker: Tracker, console: Console
) -> Tuned:
    """Search the settings of the request's one method; nothing is left behind where the request is wrong.

    Raises UsageError with what is wrong, HarnessError where images for the agreement cannot be made.
    """
    prepared = prepare(request, options)
    _check_teacher(prepared, scheduler, console)
    with open_store(prepared.context.store).in_use(), Owners(prepared.context.store) as owners:
        _make_parents(prepared, scheduler, console)
        study = prepared.open_study()
        before = len(studies.ended(study))
        _queue(prepared, study, owners, console)
        log = _try_log(prepared, study, owners, tracker, console)
        log.open()
        _run_tries(prepared, study, owners, log, scheduler, console)
        choose(prepared, study, scheduler, console)
        tuned = _written(prepared, study)
        values = {f"best/{n}": v for n, v in zip(prepared.subject.objectives, tuned.values, strict=False)}
        log.close(values, tuned.folder)
    return dataclasses.replace(tuned, trials_before=before, untracked=log.lost)


def _try_log(
    prepared: Preparation, study: Study, owners: Owners, tracker: Tracker, console: Console
) -> TryLog:
    """What tracks the tries of this study, whichever process ran them."""
    store = open_store(prepared.context.store)

    def records(number: int) -> Sequence[Record]:
        params = study.get_trials(deepcopy=False)[number].params
        return records_of(plan_of(prepared.subject, prepared.space, prepared.builder, params), store)

    return TryLog(
        tracker, prepared.name, prepared.facts, lambda: studies.ended_here(study, owners), records, console
    )


def _check_teacher(prepared: Preparation, scheduler: Scheduler, console: Console) -> None:
    """The full-precision gate, before hours of search on weights that are not what they claim to be."""
    builder = prepared.builder
    session = session_of(builder.suite, prepared.context, dict(builder.weights_sha256))
    only_teacher = [trial for trial in session.plan.trials if trial.method == "fp32"]
    run_session(_restricted(session, only_teacher), scheduler, console)


def _make_parents(prepared: Preparation, scheduler: Scheduler, console: Console) -> None:
    context = dataclasses.replace(prepared.context, watch=None)
    require(prepared.scored_on, context, open_store(context.store), scheduler, console)


def _queue(prepared: Preparation, study: Study, owners: Owners, console: Console) -> None:
    with asking(prepared.context.store):
        again = studies.queue_interrupted(study, owners)
        studies.queue_first(study, prepared.space, prepared.grid)
    if again:
        console.print(f"interrupted and queued again: try {', '.join(map(str, again))}", markup=False)


def _run_tries(
    prepared: Preparation,
    study: Study,
    owners: Owners,
    log: TryLog,
    scheduler: Scheduler,
    console: Console,
) -> None:
    """Search to the limits under a live view; every try that ends is tracked."""
    store, objectives = open_store(prepared.context.store), prepared.subject.objectives
    title = f"{prepared.name}, {len(prepared.space.dimensions)} settings"
    directions = [DIRECTIONS[name] for name in objectives]
    view = SearchView(
        title,
        objectives,
        directions,
        prepared.space,
        store,
        console,
        limits=prepared.limits,
        ended=studies.ended(study),
        seconds_before=studies.seconds_used(study),
    )
    with view:

        def on_end(ended: Ended) -> None:
            view.on_end(ended, studies.ended(study))
            log.add(ended.tried.number)

        search = Search(
            study,
            prepared.subject,
            prepared.space,
            prepared.builder,
            prepared.context,
            owners,
            prepared.limits,
            on_end=on_end,
            on_change=lambda: view.follow(search.open),
            on_wait=view.on_wait,
            on_notice=view.say,
            on_missing=lambda stages: say_damaged(stages, store, console),
        )
        search.run(scheduler)


def _written(prepared: Preparation, study: Study) -> Tuned:
    """Write what was found into the study's folder."""
    objectives, space = prepared.subject.objectives, prepared.space
    folder = prepared.context.store / "studies" / prepared.name
    facts = found.facts_of(study, objectives, prepared.split)
    facts |= {"equally": True} if prepared.options.equally else {}
    found.write_trials(folder / "trials.csv", study, space, objectives)
    best, default = found.best_of(study), found.default_of(study)
    if best is None:
        return Tuned(space, prepared.name, folder, None, facts)
    shares = found.importances(study)
    found.write_best(folder / "best.yaml", space, best.params, facts)
    found.write_importances(folder / "importances.csv", shares)
    found.write_plots(folder, study, objectives, shares)
    return Tuned(
        space=space,
        study=prepared.name,
        folder=folder,
        best=best.params,
        facts=facts,
        values=tuple(best.values),
        default_values=tuple(default.values) if default else None,
        front=tuple(map(_point, found.best_first(study))) if len(objectives) > 1 else (),
        shares=shares,
        least_for_shares=found.least_for_importances(study),
        selection=found.selection_of(study),
        seconds=studies.seconds_used(study),
    )


def _point(trial: FrozenTrial) -> dict[str, Any]:
    return {"number": trial.number, "values": tuple(trial.values), "settings": dict(trial.params)}


def verdicts_of(tuned: Sequence[Tuned], suite: Suite, records: Sequence[Record]) -> dict[str, Verdict]:
    """Method -> whether its settings were measured to be better; each best.yaml says so from now on."""
    chosen = {one.space.method: one for one in tuned if one.best is not None}
    differ = {method: one.best != one.space.defaults for method, one in chosen.items()}
    said = verdicts(records, differ, suite.seeds)
    for method, one in chosen.items():
        facts = {**one.facts, **said[method].facts}
        found.write_best(one.folder / "best.yaml", one.space, one.best or {}, facts)
    return said


def track_verdicts(tuned: Sequence[Tuned], said: Mapping[str, Verdict], tracker: Tracker) -> None:
    """Tell MLflow what was said of each method's settings. Raises TrackingError."""
    for one in tuned:
        if verdict := said.get(one.space.method):
            tracker.log_verdict(one.study, verdict.metrics, verdict.sentence, one.folder / "best.yaml")


def final_suite(suite: Suite, tuned: Sequence[Tuned], seeds: Sequence[int], name: str) -> Suite:
    """The suite with two rows for every searched method: its defaults, and what was found."""
    variants = {
        one.space.method: ({TUNED: dict(one.facts), **one.space.settings(one.best)},)
        for one in tuned
        if one.best is not None
    }
    chosen = tuple(seeds) or fresh_seeds(suite.seeds)
    return dataclasses.replace(suite, name=name, seeds=chosen, variants={**suite.variants, **variants})


def measure_final(
    suite: Suite, request: Request, scheduler: Scheduler, console: Console, *, with_anchors: bool
) -> tuple[Session, RunOutcome]:
    """Run the final suite on the report split; without anchors only the searched rows and full precision."""
    builder, context, _ = open_workbench(request)
    session = session_of(suite, context, dict(builder.weights_sha256))
    if not with_anchors:
        kept = [t for t in session.plan.trials if t.method == "fp32" or t.method in suite.methods]
        session = _restricted(session, kept)
    return session, run_session(session, scheduler, console)


def write_suite(path: Path, suite: Suite) -> None:
    """A suite as a file that `harness run --suite FILE` takes."""
    import yaml

    content: dict[str, Any] = {
        "description": f"{suite.description} Each method with its defaults and with what a search found.",
        "task": suite.task,
        "backbones": list(suite.backbones),
        "bits": [str(bits) for bits in suite.bits],
        "methods": list(suite.methods),
        "seeds": list(suite.seeds),
        "budget": suite.budget,
        "track": suite.track,
        "scope": suite.scope,
        "precision": suite.precision,
        "engines": list(suite.engines),
        "overrides": {name: dict(fields) for name, fields in suite.overrides.items()},
        "variants": {name: [dict(fields) for fields in rows] for name, rows in suite.variants.items()},
    }
    write_text(path, yaml.safe_dump(content, sort_keys=False))


def _restricted(session: Session, trials: Sequence[Trial]) -> Session:
    plan = Plan(session.plan.suite, tuple(trials), session.plan.stages)
    return dataclasses.replace(session, plan=plan)
