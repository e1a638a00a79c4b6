"""The story of a search: a study opened, tries run, the best settings written and measured."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.execution.ensure import require
from harness.execution.run import RunOutcome, run_session
from harness.execution.schedulers.base import Scheduler
from harness.planning.expansion import StageBuilder
from harness.planning.plan import Plan
from harness.planning.request import Request
from harness.planning.session import Session, cores, open_workbench, session_of
from harness.reporting.records import records_of
from harness.stages.base import RunContext
from harness.store import open_store
from harness.suites.suite import TUNED, Suite, engines_of
from harness.tuning import outcome as found
from harness.tuning import studies
from harness.tuning.objectives import DIRECTIONS, AgreementWatch, TaskWatch, parse_objectives, quality_of
from harness.tuning.search import Ended, Limits, Search, Subject, plan_of
from harness.tuning.space import Space, declared_space
from harness.tuning.view import SearchView
from methods.bits import Bits

if TYPE_CHECKING:
    from harness.tuning.studies import FrozenTrial, Study
    from results.tracking import Tracker

PROBE_SEED = 10_007
"""Seed of the images on which agreement is measured: none that a suite would use for its own."""
PROBE_IMAGES = 128
PROBES = ("fdd", "psaq_vit")
"""Methods whose images measure agreement, the first that supports the backbone. On 37 students of two
searches at W3A3 on digits, agreement on FDD's images ranked them most like their accuracy (Spearman 0.70 and
0.88), before MimiQ's (0.64, 0.83), SMI's (0.51, 0.59), PSAQ-ViT's (0.54, 0.43) and noise (0.24, 0.55)."""
_FINAL_SEEDS = 3
_MOST_GRID_POINTS = 10_000


@dataclass(frozen=True)
class TuneOptions:
    """How to search, as typed."""

    trials: int = 50
    seconds: float | None = None
    sampler: str = "tpe"
    pruner: str | None = None
    objective: str | None = None
    space: str | None = None
    grid_points: int = 3
    study: str | None = None
    storage: str | None = None
    resume: bool = False
    jobs: int | None = None
    seed: int = 0
    probe: str | None = None
    """Method whose images measure agreement; None takes the first of `PROBES` that supports the backbone."""
    final_seeds: Sequence[int] = ()
    equally: bool = False
    """One of several methods with the same budget each."""


@dataclass(frozen=True)
class Tuned:
    """What the search of one method found."""

    space: Space
    study: str
    folder: Path
    best: Mapping[str, Any] | None
    """Values of the best trial; None where no trial finished."""
    facts: Mapping[str, Any]
    values: tuple[float, ...] = ()
    default_values: tuple[float, ...] | None = None
    front: tuple[Mapping[str, Any], ...] = ()
    """With several objectives: number, values and settings of every trial on the Pareto front."""
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


def tune_method(
    request: Request, options: TuneOptions, scheduler: Scheduler, tracker: Tracker, console: Any
) -> Tuned:
    """Search the settings of the request's one method; nothing is left behind where the request is wrong.

    Raises UsageError with what is wrong, HarnessError where images for the agreement cannot be made.
    """
    search = _Preparation.of(request, options)
    search.check_teacher(scheduler, console)
    search.make_parents(scheduler, console)
    with studies.Owners(search.context.store) as owners:
        return search.run(owners, scheduler, tracker, console)


@dataclass(frozen=True)
class _Preparation:
    """Everything that is known before the first try."""

    request: Request
    options: TuneOptions
    builder: StageBuilder
    context: RunContext
    subject: Subject
    space: Space
    storage: Any
    name: str
    grid: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, request: Request, options: TuneOptions) -> _Preparation:
        from methods.registry import get_method
        from tasks.base import DataError

        _refuse_unknown_words(options)
        builder, context = open_workbench(request)
        suite = builder.suite
        method, backbone, bits = _one(suite.methods, "method"), *_place(suite)
        engine = _one(engines_of(suite, get_method(method)), "engine")
        objectives = parse_objectives(options.objective, get_method(method).data_use, context.device)
        if len(objectives) > 1 and options.pruner not in (None, "none"):
            raise UsageError(f"--pruner {options.pruner}: a search with several objectives is not pruned")
        space = declared_space(
            method,
            engine,
            builder.synthesis_config(method, engine),
            builder.engine_config(method, engine),
            options.space,
        )
        grid = space.grid(options.grid_points, _MOST_GRID_POINTS) if options.sampler == "grid" else []
        name = options.study or "-".join((suite.name, method, engine, backbone, str(bits), *objectives))
        if not re.fullmatch(r"[\w.-]+", name):
            raise UsageError(f"--study {name}: letters, digits, '.', '_' and '-' only")
        probed = quality_of(objectives) == "agreement"
        try:
            reference = builder.reference(backbone, "tune")
            probe = _probe(builder, options.probe or _own_probe(backbone), backbone) if probed else None
        except DataError as error:
            raise UsageError(str(error)) from None
        subject = Subject(method, engine, backbone, bits, suite.seeds, objectives, reference, probe)
        watch = AgreementWatch(probe.key) if probe else TaskWatch(suite.task, reference.key)
        storage = studies.open_storage(options.storage, context.store)
        return cls(
            request=request,
            options=options,
            builder=builder,
            context=dataclasses.replace(context, watch=watch),
            subject=subject,
            space=space,
            storage=storage,
            name=name,
            grid=tuple(grid),
        )

    def check_teacher(self, scheduler: Scheduler, console: Any) -> None:
        """The full-precision gate, before hours of search on weights that are not what they claim to be."""
        session = session_of(self.builder.suite, self.context, dict(self.builder.weights_sha256))
        only_teacher = [trial for trial in session.plan.trials if trial.method == "fp32"]
        run_session(_restricted(session, only_teacher), scheduler, console)

    def make_parents(self, scheduler: Scheduler, console: Any) -> None:
        """What every try is scored with: the teacher's answers on the tuning split, or synthetic images."""
        context = dataclasses.replace(self.context, watch=None)
        stage = self.subject.probe or self.subject.reference
        require(stage, context, open_store(context.store), scheduler, console)

    def run(self, owners: studies.Owners, scheduler: Scheduler, tracker: Tracker, console: Any) -> Tuned:
        """Search, and write what was found."""
        study = self._study()
        self._queue(study, owners, console)
        parent = tracker.open_search(self.name, self._facts())
        store = open_store(self.context.store)
        directions = [DIRECTIONS[name] for name in self.subject.objectives]
        title = f"{self.name}, {len(self.space.dimensions)} settings"
        with SearchView(title, self.subject.objectives, directions, self.space, store, console) as view:

            def on_end(ended: Ended) -> None:
                view.on_end(ended)
                for record in records_of(plan_of(ended.tried, self.builder), store):
                    tracker.log_try(parent, ended.tried.number, record)

            search = Search(
                study,
                self.subject,
                self.space,
                self.builder,
                self.context,
                owners,
                self._limits(),
                on_end=on_end,
                on_change=lambda: view.follow(search.open),
            )
            search.run(scheduler)
        tuned = self._outcome(study)
        values = {f"best/{n}": v for n, v in zip(self.subject.objectives, tuned.values, strict=False)}
        tracker.close_search(parent, values, tuned.folder)
        return tuned

    def _study(self) -> Study:
        options, jobs = self.options, self._limits().jobs
        reports = self.context.watch.reports if self.context.watch else 1
        several = len(self.subject.objectives) > 1
        return studies.open_study(
            self.storage,
            self.name,
            self._facts(),
            [DIRECTIONS[name] for name in self.subject.objectives],
            sampler=lambda before: studies.make_sampler(options.sampler, options.seed + 1000 * before, jobs),
            pruner=studies.make_pruner("none" if several else options.pruner or "median", reports),
            resume=options.resume,
        )

    def _queue(self, study: Study, owners: studies.Owners, console: Any) -> None:
        with studies.asking(self.context.store):
            again = studies.queue_interrupted(study, owners)
            studies.queue_first(study, self.space, self.grid)
        if again:
            numbers = ", ".join(map(str, again))
            console.print(f"interrupted and queued again: try {numbers}", highlight=False)

    def _limits(self) -> Limits:
        options = self.options
        trials = min(options.trials, len(self.grid) + 1) if self.grid else options.trials
        jobs = options.jobs or max(1, cores() // self.context.threads)
        return Limits(trials, options.seconds, jobs)

    def _facts(self) -> dict[str, Any]:
        """What makes this search what it is, in plain JSON."""
        subject = self.subject
        facts = {
            "method": subject.method,
            "engine": subject.engine,
            "backbone": subject.backbone,
            "weights": self.builder.weights_sha256[subject.backbone][:16],
            "bits": str(subject.bits),
            "suite": self.builder.suite.name,
            "task": self.builder.suite.task,
            "budget": self.builder.suite.budget,
            "scope": self.builder.suite.scope,
            "seeds": list(subject.seeds),
            "objectives": list(subject.objectives),
            "scored on": (subject.probe or subject.reference).key,
            "space": [dimension.to_json() for dimension in self.space.dimensions],
        }
        return json.loads(json.dumps(facts))  # as the study gives it back

    def _outcome(self, study: Study) -> Tuned:
        options, objectives = self.options, self.subject.objectives
        folder = self.context.store / "studies" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        split = "synthetic images" if self.subject.probe else "tune"
        facts = found.facts_of(study, objectives, split) | ({"equally": True} if options.equally else {})
        found.write_trials(folder / "trials.csv", study, self.space, objectives)
        best, default = found.best_of(study), found.default_of(study)
        if not best:
            return Tuned(self.space, self.name, folder, None, facts)
        shares = found.importances(study)
        found.write_best(folder / "best.yaml", self.space, best[0].params, facts)
        found.write_importances(folder / "importances.csv", shares)
        found.write_plots(folder, study, objectives, shares)
        return Tuned(
            space=self.space,
            study=self.name,
            folder=folder,
            best=best[0].params,
            facts=facts,
            values=tuple(best[0].values),
            default_values=tuple(default.values) if default else None,
            front=tuple(map(_point, best)) if len(objectives) > 1 else (),
            shares=shares,
            seconds=studies.seconds_used(study),
        )


def final_suite(suite: Suite, tuned: Sequence[Tuned], seeds: Sequence[int], name: str) -> Suite:
    """The suite in which every searched method stands twice: with its defaults and with what was found."""
    variants = {
        one.space.method: ({TUNED: dict(one.facts), **one.space.settings(one.best)},)
        for one in tuned
        if one.best is not None
    }
    chosen = tuple(seeds) or fresh_seeds(suite.seeds)
    return dataclasses.replace(suite, name=name, seeds=chosen, variants={**suite.variants, **variants})


def fresh_seeds(used: Sequence[int]) -> tuple[int, ...]:
    """Three seeds that no try was scored with: the best of many tries is partly luck with its seed."""
    candidates = (seed for seed in range(len(used) + _FINAL_SEEDS) if seed not in used)
    return tuple(list(candidates)[:_FINAL_SEEDS])


def measure_final(
    suite: Suite, request: Request, scheduler: Scheduler, console: Any, *, with_anchors: bool
) -> tuple[Session, RunOutcome]:
    """Run the final suite on the report split; without anchors only the searched rows and full precision."""
    builder, context = open_workbench(request)
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
        "engines": list(suite.engines),
        "overrides": {name: dict(fields) for name, fields in suite.overrides.items()},
        "variants": {name: [dict(fields) for fields in rows] for name, rows in suite.variants.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _restricted(session: Session, trials: Sequence[Any]) -> Session:
    plan = Plan(session.plan.suite, tuple(trials), session.plan.stages)
    return dataclasses.replace(session, plan=plan)


def _own_probe(backbone: str) -> str:
    from backbones import SPECS
    from methods.registry import get_method

    for name in PROBES:
        synthesizer = get_method(name).synthesizer
        if synthesizer is not None and SPECS[backbone].family in synthesizer.families:
            return name
    raise UsageError(f"--objective agreement: no method makes images for {backbone} by itself")


def _probe(builder: StageBuilder, name: str, backbone: str) -> Any:
    """Synthesis of the held-out images: a method's own defaults, another seed than any suite's."""
    from methods.registry import UnknownName, get_method

    try:
        method = get_method(name)
    except UnknownName as error:
        raise UsageError(f"--probe: {error}") from None
    if method.synthesizer is None or method.synthesizer.needs_student or method.synthesizer.needs_real_images:
        raise UsageError(f"--probe {name}: a method that makes images from the teacher alone, such as fdd")
    probed = builder.varied(name, {"images": PROBE_IMAGES})
    return probed.synthesis(name, method.engine or "psaq_ptq", backbone, PROBE_SEED)


def _place(suite: Suite) -> tuple[str, Bits]:
    return _one(suite.backbones, "backbone"), _one(suite.bits, "bits")


def _one(values: Sequence[Any], what: str) -> Any:
    if len(values) == 1:
        return values[0]
    there = ", ".join(map(str, values)) or "none"
    raise UsageError(f"a search is about one {what}, here are {there}: choose with --{what}")


def _refuse_unknown_words(options: TuneOptions) -> None:
    from methods.settings import suggestion

    faults = []
    for option, value, known in (
        ("sampler", options.sampler, studies.SAMPLERS),
        ("pruner", options.pruner, studies.PRUNERS),
    ):
        if value is not None and value not in known:
            faults.append(f"--{option} {value}: unknown{suggestion(value, known)}")
    if faults:
        raise UsageError.of(faults)


def _point(trial: FrozenTrial) -> dict[str, Any]:
    return {"number": trial.number, "values": tuple(trial.values), "settings": dict(trial.params)}
