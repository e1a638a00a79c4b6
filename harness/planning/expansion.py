"""Expands a suite to a plan: which stages each trial needs, with their settings and content keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from harness.planning.making import Making, making_of
from harness.planning.plan import Plan, Trial
from harness.planning.stage_builder import StageBuilder
from harness.planning.task_facts import TaskFacts
from harness.stages.base import RunContext, Stage
from harness.suites.suite import ANCHORS, Suite, engines_of
from methods.bits import FULL_PRECISION, Bits
from methods.registry import get_method
from tasks.base import Split

_PROTOCOL = ("transform", "precision")
"""Settings of an evaluation that rows must share to be ranked together."""


def build_plan(
    suite: Suite,
    context: RunContext,
    weights_sha256: Mapping[str, str],
    facts: TaskFacts | None = None,
) -> Plan:
    """Expand a suite. `weights_sha256` holds the hash of every backbone's weights, `facts` the task's splits.

    Raises tasks.base.DataError when the task's data is not there.
    """
    builder = StageBuilder(suite, weights_sha256, facts or TaskFacts.of(suite.task, context.data))
    trials = [trial for backbone in suite.backbones for trial in _trials_of(builder, backbone)]
    return Plan(suite, tuple(trials), builder.stages)


def _trials_of(builder: StageBuilder, backbone: str) -> Iterable[Trial]:
    """The anchors and the methods on one backbone."""
    suite = builder.suite
    reference = builder.reference(backbone)
    yield _trial(builder, "fp32", "none", backbone, FULL_PRECISION, 0, reference)
    names = [name for name in ANCHORS if name != "fp32"] + list(suite.methods)
    rows = [(name, varied) for name in names for varied in builder.variants(name)]
    for bits in suite.bits:
        for name, varied in rows:
            for engine in engines_of(suite, get_method(name)):
                for seed in suite.seeds:
                    yield quantized_trial(varied, name, engine, backbone, bits, seed, reference)


def quantized_trial(
    builder: StageBuilder,
    name: str,
    engine: str,
    backbone: str,
    bits: Bits,
    seed: int,
    reference: Stage,
    *,
    split: Split | Literal["synthetic"] = "report",
    score: Callable[[Stage], Stage] | None = None,
) -> Trial:
    """One method with one engine, its stages in the builder; `score` makes the stage that scores a student.

    Without `score` the student is evaluated on the task's split; `reference` is the teacher on the same.
    """
    method = get_method(name)
    making = making_of(builder, name, engine, backbone, bits, seed, (reference.key,))
    if score is None:
        assert split != "synthetic", "synthetic images have a score of their own"
        evaluation = builder.evaluation(backbone, making.student, reference, split)
    else:
        evaluation = score(making.student)
    return _trial(
        builder,
        name,
        engine,
        backbone,
        bits,
        seed,
        evaluation,
        making=making,
        settings=builder.settings(name, engine),
        engine_protocol=builder.protocol(name, engine, bits),
        track="controlled" if method.engine not in (None, engine) else builder.suite.track,
        split=split,
        notes=builder.notes(name, engine),
    )


def _trial(
    builder: StageBuilder,
    method: str,
    engine: str,
    backbone: str,
    bits: Bits,
    seed: int,
    evaluation: Stage,
    *,
    making: Making | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    engine_protocol: Mapping[str, Any] | None = None,
    track: str | None = None,
    split: str = "report",
    notes: tuple[str, ...] = (),
) -> Trial:
    return Trial(
        trial=evaluation.key,
        method=method,
        synthesizer=method if making else "none",
        engine=engine,
        backbone=backbone,
        bits=str(bits),
        task=builder.suite.task,
        track=track or builder.suite.track,
        budget=builder.suite.budget,
        seed=seed,
        data_use=get_method(method).data_use,
        settings=settings or {},
        protocol={
            "engine": engine_protocol or {},
            **{name: evaluation.settings[name] for name in _PROTOCOL if name in evaluation.settings},
        },
        weights_sha256=builder.weights_sha256[backbone],
        notes=notes,
        making=tuple(stage.key for stage in making.stages) if making else (),
        training=tuple(stage.key for stage in making.training) if making else (),
        images=making.images.key if making else None,
        split=split,
        tuning=builder.suite.tuned.get(method, {}),
        code=builder.code(method, engine, backbone),
    )
