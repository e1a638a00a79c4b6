"""Everything that is known of a search before its first try, checked: subject, space, scoring, limits, study.

Starts no work; what has to be made before the first try is named here and made by `harness.tuning.tune`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from backbones import SPECS
from backbones.names import quoted, shown, suggestion
from harness.errors import UsageError
from harness.planning.request import Request
from harness.planning.run_context import cores
from harness.planning.session import open_workbench
from harness.planning.stage_builder import StageBuilder
from harness.stages.base import RunContext, Stage
from harness.store.names import name_fault
from harness.suites.suite import Suite, engines_of
from harness.tuning import studies
from harness.tuning.objectives import (
    DATA_FREE,
    DIRECTIONS,
    AgreementWatch,
    TaskWatch,
    parse_objectives,
    quality_of,
)
from harness.tuning.options import TuneOptions
from harness.tuning.search import Limits, Subject
from harness.tuning.selection import SHARE, kept_back
from harness.tuning.space import Space, declared_space
from harness.tuning.storage import open_storage
from methods.registry import UnknownName, get_method
from tasks.base import DataError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study

PROBE_SEED = 10_007
"""Seed of the images that teacher and students answer: none that a suite would use for its own."""
PROBE_IMAGES = 128
"""Number of these images."""
PROBE, PROBE_OF_DETECTORS = "mimiq", "psaq_vit"
"""Methods whose images are answered by teacher and students; see docs/design/probe-of-the-search.md."""
_FINAL_SEEDS = 3
_MOST_GRID_POINTS = 10_000
_HIGHEST_SEED = 2**31 - 1
"""Samplers take 32 bits; what is left above is for the processes that join a study."""
_RESERVED = ("owners",)
"""What else lies in the folder of studies."""
_RESERVED_ENDINGS = (".log", ".lock", ".yaml")

Value = TypeVar("Value")


@dataclass(frozen=True)
class Preparation:
    """A checked search."""

    options: TuneOptions
    builder: StageBuilder
    context: RunContext
    """Where and how stages run, with the watch that scores students while they train."""
    subject: Subject
    space: Space
    storage: BaseStorage
    name: str
    """Name of the study, and of its folder in the store."""
    grid: tuple[Mapping[str, Any], ...]
    """The points of a grid search; empty for every other sampler."""

    @property
    def scored_on(self) -> Stage:
        """What every try is scored with: synthetic images, or the teacher's answers on the tuning split."""
        return self.subject.probe or self.subject.reference

    @property
    def split(self) -> str:
        """What the tries' values were measured on, in words."""
        return "synthetic images" if self.subject.probe else "tune"

    @property
    def kept_back(self) -> int:
        """Scorings of the budget that are kept for the finalists; a Pareto front has none to choose from."""
        return kept_back(self.options.trials) if len(self.subject.objectives) == 1 else 0

    @property
    def limits(self) -> Limits:
        """When to stop asking: before what is kept back for the finalists, a grid with its points."""
        options = self.options
        trials = options.trials - self.kept_back
        seconds = options.seconds
        if seconds is not None and self.kept_back:
            seconds *= 1 - SHARE
        jobs = options.jobs or max(1, cores() // self.context.threads)
        return Limits(min(trials, len(self.grid) + 1) if self.grid else trials, seconds, jobs)

    def further_seeds(self, scoring: int) -> tuple[int, ...]:
        """Seeds of the finalists' scoring of that index: none of a try, of another scoring or of the end."""
        count, used = len(self.subject.seeds), {*self.subject.seeds, *self.final_seeds, PROBE_SEED}
        unused = (seed for seed in itertools.count() if seed not in used)
        return tuple(itertools.islice(unused, scoring * count, (scoring + 1) * count))

    @property
    def final_seeds(self) -> tuple[int, ...]:
        """Seeds with which the default and the chosen settings are compared at the end."""
        return tuple(self.options.final_seeds) or fresh_seeds(self.subject.seeds)

    @property
    def facts(self) -> dict[str, Any]:
        """What makes this search what it is, in plain JSON: only the same search may go on with its study."""
        subject, suite = self.subject, self.builder.suite
        facts: dict[str, Any] = {
            "method": subject.method,
            "engine": subject.engine,
            "backbone": subject.backbone,
            "weights": self.builder.weights_sha256[subject.backbone][:16],
            "bits": str(subject.bits),
            "suite": suite.name,
            "task": suite.task,
            "budget": suite.budget,
            "scope": suite.scope,
            "precision": suite.precision,
            "seeds": list(subject.seeds),
            "objectives": list(subject.objectives),
            "scored on": self.scored_on.key,
            "space": [dimension.to_json() for dimension in self.space.dimensions],
        }
        as_stored: dict[str, Any] = json.loads(json.dumps(facts))
        return as_stored

    def open_study(self) -> Study:
        """The study, new or to be resumed; raises UsageError where that cannot be."""
        options, jobs = self.options, self.limits.jobs
        reports = self.context.watch.reports if self.context.watch else 1
        several = len(self.subject.objectives) > 1
        return studies.open_study(
            self.storage,
            self.name,
            self.facts,
            {name: DIRECTIONS[name] for name in self.subject.objectives},
            sampler=lambda before: studies.make_sampler(options.sampler, options.seed + 1000 * before, jobs),
            pruner=studies.make_pruner("none" if several else options.pruner or "median", reports),
            resume=options.resume,
        )


def fresh_seeds(used: Sequence[int]) -> tuple[int, ...]:
    """Three seeds that no try was scored with: the best of many tries is partly luck with its seed."""
    candidates = (seed for seed in range(len(used) + _FINAL_SEEDS) if seed not in used)
    return tuple(list(candidates)[:_FINAL_SEEDS])


def prepare(request: Request, options: TuneOptions) -> Preparation:
    """Check a search of the request's one method; raises UsageError with what is wrong."""
    faults = option_faults(options)
    if faults:
        raise UsageError.of(faults)
    builder, context, _ = open_workbench(request)
    subject = _subject(builder, options, context.device)
    space = declared_space(
        subject.method,
        subject.engine,
        builder.synthesis_config(subject.method, subject.engine),
        builder.engine_config(subject.method, subject.engine),
        options.space,
    )
    grid = space.grid(options.grid_points, _MOST_GRID_POINTS) if options.sampler == "grid" else []
    probe = subject.probe
    watch = (
        AgreementWatch(probe.key, quality_of(subject.objectives))
        if probe
        else TaskWatch(builder.suite.task, subject.reference.key)
    )
    return Preparation(
        options=options,
        builder=builder,
        context=dataclasses.replace(context, watch=watch),
        subject=subject,
        space=space,
        name=_study_name(options, builder.suite, subject),
        storage=open_storage(options.storage, context.store),
        grid=tuple(grid),
    )


def _subject(builder: StageBuilder, options: TuneOptions, device: str) -> Subject:
    suite = builder.suite
    method = get_method(_one(suite.methods, "method"))
    backbone, bits = _one(suite.backbones, "backbone"), _one(suite.bits, "bits")
    engine = _one(engines_of(suite, method), "engine")
    is_detector = SPECS[backbone].is_detector
    objectives = parse_objectives(options.objective, method.data_use, device, is_detector=is_detector)
    if len(objectives) > 1 and options.pruner not in (None, "none"):
        raise UsageError(f"--pruner {shown(options.pruner)}: a search with several objectives is not pruned")
    probed = quality_of(objectives) in DATA_FREE
    own_probe = PROBE_OF_DETECTORS if is_detector else PROBE
    try:
        reference = builder.reference(backbone, "tune")
        probe = _probe(builder, options.probe or own_probe, backbone) if probed else None
    except DataError as error:
        raise UsageError(str(error)) from None
    return Subject(method.name, engine, backbone, bits, suite.seeds, objectives, reference, probe)


def _probe(builder: StageBuilder, name: str, backbone: str) -> Stage:
    """Synthesis of the held-out images: a method's own defaults, another seed than any suite's."""
    try:
        method = get_method(name)
    except UnknownName as error:
        raise UsageError(f"--probe: {error}") from None
    if method.synthesizer is None or method.synthesizer.needs_student or method.synthesizer.needs_real_images:
        raise UsageError(
            f"--probe {shown(name)}: a method that makes images from the teacher alone, such as mimiq"
        )
    probed = builder.varied(name, {"images": PROBE_IMAGES})
    try:
        return probed.synthesis(name, method.engine or "psaq_ptq", backbone, PROBE_SEED)
    except UsageError as error:
        raise UsageError(f"--probe {error}") from None


def _study_name(options: TuneOptions, suite: Suite, subject: Subject) -> str:
    if options.study is not None:
        return options.study  # checked with the other options
    parts = (suite.name, subject.method, subject.engine, subject.backbone, str(subject.bits))
    name = "-".join((*parts, *subject.objectives))
    fault = _study_fault(name)
    if fault:
        raise UsageError(f"the study would be called {shown(name)}, but {fault}: give --study NAME")
    return name


def _study_fault(name: str) -> str:
    """What keeps a name from being that of a study, half a sentence; empty where nothing does."""
    if name in _RESERVED or name.endswith(_RESERVED_ENDINGS):
        return "this name is that of another file of the store"
    if name and not re.fullmatch(r"[\w.-]+", name):
        return "a study's name has letters, digits, '.', '_' and '-' only"
    return name_fault(name)


def _one(values: Sequence[Value], what: str) -> Value:
    if len(values) == 1:
        return values[0]
    there = ", ".join(map(str, values)) or "none"
    raise UsageError(f"a search is about one {what}, here are {there}: choose with --{what}")


def option_faults(options: TuneOptions) -> list[str]:
    """A sentence for every option that is wrong by itself, whatever is searched."""
    faults = []
    if not 0 <= options.seed <= _HIGHEST_SEED:
        faults.append(f"--seed {shown(options.seed)}: from 0 to {_HIGHEST_SEED}")
    if options.seconds is not None and not math.isfinite(options.seconds):
        faults.append(f"--budget-seconds {options.seconds}: a finite number; leave it out for no limit")
    if options.study is not None and (misnamed := _study_fault(options.study)):
        faults.append(f"--study {quoted(options.study)}: {misnamed}")
    return faults + [
        f"--{option} {shown(value)}: unknown{suggestion(value, known)}"
        for option, value, known in (
            ("sampler", options.sampler, studies.SAMPLERS),
            ("pruner", options.pruner, studies.PRUNERS),
        )
        if value is not None and value not in known
    ]
