"""What is wrong with a bundle's records before anything is repeated: they have to agree with themselves.

A fault says that a record contradicts itself or what is known here; a doubt, that something cannot be known.
Nobody can check costs, environments and dates of another machine.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backbones import SPECS
from harness.errors import HarnessError
from harness.planning.expansion import build_plan
from harness.planning.plan import Trial
from harness.planning.stage_builder import plain, trial_code
from harness.planning.task_facts import UNKNOWN, TaskFacts
from harness.reporting.bundles import Bundle, SuiteBundle
from harness.stages.base import RunContext
from harness.stages.precision import EXACT
from harness.suites.loading import load_suite, suite_names
from harness.suites.suite import ANCHORS, Suite, engines_of
from methods.bits import Bits
from methods.registry import get_engine, get_method
from methods.settings import BUDGETS, configure
from results.metrics import compared_with_itself
from results.record import Record
from results.statistics import unpack_outcomes
from tasks.base import DataError, Split, SplitFacts
from tasks.registry import get_task

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Known:
    """What is found here to check records against."""

    context: RunContext
    """Its weights and data; a plan is made with it, nothing is run."""
    weights_sha256: Mapping[str, str]
    """Backbone -> SHA-256 of the weights that are here."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with a record, or cannot be known of it."""

    faults: tuple[str, ...]
    doubts: tuple[str, ...]
    """Why it cannot be repeated here; none where it can."""


def findings(bundle: Bundle, known: Known) -> dict[str, Finding]:
    """Trial -> what was found, for every trial of a bundle."""
    among: dict[str, list[Record]] = defaultdict(list)
    for record in bundle.records:
        among[record.trial].append(record)
    code = {trial: digest for suite in bundle.suites for trial, digest in suite.code.items()}
    found = {}
    for trial, records in among.items():
        faults = [fault for record in records for fault in _faults(record, bundle.records)]
        if len({str(record.identity()) for record in records}) > 1:
            faults.append("several trials have this key")
        more, doubts = _against_here(records[0], code.get(trial, ""), known)
        found[trial] = Finding(tuple(dict.fromkeys([*faults, *more])), tuple(doubts))
    return found


def not_told(suite: SuiteBundle) -> str:
    """What a suite has and its bundle neither holds nor tells as never run, a sentence; empty for nothing."""
    name, records = suite.found.suite, suite.found.records
    if name not in suite_names():
        return f"{name}: no shipped suite, so that trials that were dropped from it cannot be noticed"
    whole, left = load_suite(name), suite.found.left_out
    there = {(r.backbone, r.bits, r.method, r.engine, str(r.seed)) for r in records}
    chosen = tuple(method for method in whole.methods if method not in left.get("methods", ()))

    def own(method: str) -> set[str]:
        return set(engines_of(dataclasses.replace(whole, methods=chosen), get_method(method)))

    seeds = sorted({*whole.seeds, *(record.seed for record in records if record.engine != "none")})
    wanted = [
        (backbone, str(bits), method, engine, str(seed))
        for backbone in whole.backbones
        for bits in whole.bits
        for method in (*ANCHORS[1:], *whole.methods)
        for engine in whole.engines
        or sorted({r.engine for r in records if r.method == method} or own(method))
        for seed in seeds
    ]
    lists = ("backbones", "bits", "methods", "engines", "seeds")
    lacking = [
        " ".join(one)
        for one in wanted
        if one not in there and not any(v in left.get(n, ()) for n, v in zip(lists, one, strict=True))
    ]
    if not lacking:
        return ""
    more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
    return f"{name}: neither in the bundle nor told as left out: {', '.join(lacking[:3])}{more}"


def _faults(record: Record, records: list[Record]) -> Iterator[str]:
    """Where a record contradicts itself, or the others of its bundle."""
    if record.status != "ok":
        return
    bits = {name: unpack_outcomes(packed, record.images) for name, packed in record.outcomes.items()}
    exact = compared_with_itself() if record.method == "fp32" else {}
    for name, right in bits.items():
        told, counted = record.metrics.get(name), 100 * float(right.mean())
        if told is not None and name not in exact and not abs(told - counted) <= _ROUNDING:
            yield f"{name} is {told:.4f}, its outcomes give {counted:.4f}"
    if record.metric not in bits and record.metric not in record.scores:
        yield f"no outcomes of {record.metric}, which ranks it"
    if "top1" in bits and "top5" in bits and (bits["top1"] & ~bits["top5"]).any():
        yield "images are right in top1 and wrong in top5"
    if record.split != "report":
        yield f"scored on the split {record.split}, not report"
    if record.protocol.get("evaluated_samples") != record.samples_digest[:16]:
        yield "its protocol names other images than its digest"
    yield from _faults_of_cost(record, records)
    teachers = [
        other.metrics.get(record.metric, math.nan)
        for other in records
        if other.method == "fp32" and _measured_alike(record, other)
    ]
    told = record.protocol.get("full_precision")
    if teachers and told is not None and all(round(score, 3) != told for score in teachers):
        yield f"its protocol says full precision has {told}, the bundle's has {teachers[0]:.3f}"


def _faults_of_cost(record: Record, records: list[Record]) -> Iterator[str]:
    seconds, rate = (record.cost.get(name) for name in ("evaluation_seconds", "images_per_second"))
    if seconds and rate and not math.isclose(record.images, seconds * rate, rel_tol=1e-3):
        yield "images_per_second is not its images by evaluation_seconds"
    own = record.cost.get("synthesis_seconds")
    for other in records:
        if own is None or other.status != "ok" or not _shares_images(record, other):
            continue
        if (theirs := other.cost.get("synthesis_seconds")) is not None and not math.isclose(own, theirs):
            yield f"its images took {own:.2f} s, the same ones {theirs:.2f} s in another trial"
            return


def _shares_images(record: Record, other: Record) -> bool:
    """Whether two trials were made from one set; not known of a method that is not registered."""
    try:
        synthesizer = get_method(record.method).synthesizer
    except ValueError:
        return False
    if synthesizer is None or synthesizer.needs_student:
        return False
    alike = all(getattr(record, n) == getattr(other, n) for n in ("method", "backbone", "seed", "task"))
    same = record.settings.get("synthesizer") == other.settings.get("synthesizer")
    return alike and same and record.weights_sha256 == other.weights_sha256


def _measured_alike(record: Record, other: Record) -> bool:
    names = ("backbone", "task", "metric", "weights_sha256", "samples_digest")
    return other.status == "ok" and all(getattr(record, n) == getattr(other, n) for n in names)


def _against_here(record: Record, code: str, known: Known) -> tuple[list[str], list[str]]:
    """Faults and doubts of a record beside the code, weights and data that are here."""
    try:
        method, task = get_method(record.method), get_task(record.task)
        ours = trial_code(record.method, record.engine, record.backbone, record.task)
    except ValueError as error:
        return [], [f"{error}: give its --plugin"]
    faults, doubts = [], []
    if record.data_use != method.data_use:
        faults.append(f"{record.method} sees {method.data_use}, not {record.data_use}")
    if record.synthesizer not in (record.method, "none"):
        faults.append(f"the synthesizer of {record.method} is not {record.synthesizer}")
    faults += _faults_of_budget(record)
    weights, shipped = known.weights_sha256.get(record.backbone), SPECS[record.backbone].shipped_weights
    if weights is None:
        doubts.append(f"weights of {record.backbone} not found: give --weights")
    elif weights != record.weights_sha256:
        said = f"weights of {record.backbone} are others than those here"
        (faults if shipped else doubts).append(said)
    try:
        samples = TaskFacts.of(record.task, known.context.data)("report").digest
        if record.status == "ok" and samples != record.samples_digest:
            (doubts if task.data_name else faults).append(f"other images than the {record.task} data here")
    except DataError as error:
        doubts.append(str(error))
    try:
        trial = claimed_trial(record, known)
    except (HarnessError, DataError, ValueError, TypeError, KeyError) as error:
        return [*faults, f"its settings make no trial: {error}"], doubts
    if trial.settings != record.settings:
        faults.append(f"its settings are not all of those of {record.method} and {record.engine}")
    engine = record.protocol.get("engine", {})
    if trial.protocol["engine"] != engine and code in ("", ours):
        faults.append("its protocol is not that of its engine, settings and bits")
    if trial.protocol.get("transform") != record.protocol.get("transform"):
        faults.append(f"its transform is not that of {record.backbone}")
    # The key of real images tells the tuning split too, which is not known without the data.
    is_whole = not doubts or method.synthesizer is None or not method.synthesizer.needs_real_images
    if trial.trial != record.trial and is_whole:
        if code == ours:
            faults.append("its key does not follow from its method, settings, bits, seed, weights and images")
        else:
            doubts.append("its key is of other code, so that a repetition says nothing")
    return faults, doubts


def _faults_of_budget(record: Record) -> Iterator[str]:
    """Whether settings are those of another budget than the record's; changed ones are those of none."""
    synthesizer = get_method(record.method).synthesizer
    if synthesizer is None:
        return
    for part, config in (("synthesizer", synthesizer.Config), ("engine", get_engine(record.engine).Config)):
        own = record.settings.get(part, {})
        alike = [budget for budget in BUDGETS if own == plain(configure(config, budget, {}))]
        if alike and record.budget not in alike:
            yield f"its {part} has the settings of the budget {alike[0]}, not {record.budget}"


class _ClaimedFacts(TaskFacts):
    """The facts of a task as a record tells them, so that its key can be made without the data."""

    def __init__(self, record: Record, data: Any) -> None:
        task = get_task(record.task)
        super().__init__(task, data.get(task.data_name or ""), outline=True)
        self._report = dataclasses.replace(UNKNOWN, digest=record.samples_digest)

    def __call__(self, split: Split) -> SplitFacts:
        return self._report if split == "report" else super().__call__(split)


def claimed_trial(record: Record, known: Known) -> Trial:
    """The trial that a record's own words make; raises errors of planning where they make none."""
    suite = claimed_suite(record)
    facts = _ClaimedFacts(record, known.context.data)
    plan = build_plan(suite, known.context, {record.backbone: record.weights_sha256}, facts)
    return next(trial for trial in plan.trials if is_of(trial, record))


def is_of(trial: Trial, record: Record) -> bool:
    """Whether a trial of `claimed_suite` is the record's own."""
    return trial.method == record.method and trial.engine == record.engine


def claimed_suite(record: Record) -> Suite:
    """A suite of the record's trial, full precision and anchors."""
    engine = record.protocol.get("engine", {})
    is_fp32 = record.engine == "none"
    method = get_method(record.method)
    settings = {**record.settings.get("synthesizer", {}), record.engine: record.settings.get("engine", {})}
    if not is_fp32 and method.synthesizer is not None:
        configure(method.synthesizer.Config, record.budget, record.settings.get("synthesizer", {}))
    return Suite(
        name="claimed",
        task=record.task,
        backbones=(record.backbone,),
        bits=() if is_fp32 else (Bits.parse(record.bits),),
        methods=() if is_fp32 or record.method in ANCHORS else (record.method,),
        seeds=(record.seed,),
        budget=record.budget,
        track="controlled",
        engines=() if is_fp32 else (record.engine,),
        scope=engine.get("scope", "whole"),
        precision=record.protocol.get("precision", EXACT),
        overrides={} if is_fp32 else {record.method: settings},
        oracle=any(name.startswith("oracle_") for name in record.metrics),
    )
