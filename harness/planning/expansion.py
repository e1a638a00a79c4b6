"""Expands a suite to a plan: which stages each trial needs, with their settings and content keys."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.planning.code_digest import PROJECT, code_digest
from harness.planning.plan import Plan, Trial, stage_key
from harness.stages.base import Kind, RunContext, Stage
from harness.suites.suite import ANCHORS, TUNED, Suite, engines_of, merged
from methods.bits import FULL_PRECISION, Bits

if TYPE_CHECKING:
    from tasks.base import SplitFacts


def build_plan(suite: Suite, context: RunContext, weights_sha256: Mapping[str, str]) -> Plan:
    """Expand a suite. `weights_sha256` holds the hash of every backbone's weights.

    Raises tasks.base.DataError when the task's data is not there.
    """
    builder = StageBuilder(suite, context, weights_sha256)
    trials = [trial for backbone in suite.backbones for trial in _trials_of(builder, backbone)]
    return Plan(suite, tuple(trials), builder.stages)


def _trials_of(builder: StageBuilder, backbone: str) -> Iterable[Trial]:
    """The anchors and the methods on one backbone."""
    from methods.registry import get_method

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
    split: str = "report",
    score: Callable[[Stage], Stage] | None = None,
) -> Trial:
    """One method with one engine, its stages in the builder; `score` makes the stage that scores a student.

    Without `score` the student is evaluated on the task's split; `reference` is the teacher on the same.
    """
    from methods.registry import get_engine, get_method

    method = get_method(name)
    synthesis = None
    if not builder.is_coupled(name):
        synthesis = builder.synthesis(name, engine, backbone, seed, after=(reference.key,))
    quantization = builder.quantization(name, engine, backbone, bits, seed, synthesis, (reference.key,))
    if score is None:
        evaluation = builder.evaluation(backbone, quantization, reference, split)
    else:
        evaluation = score(quantization)
    engine_config = builder.engine_config(name, engine)
    return _trial(
        builder,
        name,
        engine,
        backbone,
        bits,
        seed,
        evaluation,
        quantization=quantization.key,
        synthesis=synthesis.key if synthesis else None,
        settings={
            "synthesizer": _plain(builder.synthesis_config(name, engine)),
            "engine": _plain(engine_config),
        },
        engine_protocol=get_engine(engine)(engine_config, builder.suite.scope).protocol(bits),
        track="controlled" if method.engine not in (None, engine) else builder.suite.track,
        split=split,
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
    quantization: str | None = None,
    synthesis: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    engine_protocol: Mapping[str, Any] | None = None,
    track: str | None = None,
    split: str = "report",
) -> Trial:
    from backbones import SPECS
    from methods.registry import get_method

    transform = dataclasses.asdict(SPECS[backbone].data)
    return Trial(
        trial=evaluation.key,
        method=method,
        synthesizer=method if quantization else "none",
        engine=engine,
        backbone=backbone,
        bits=str(bits),
        task=builder.suite.task,
        track=track or builder.suite.track,
        budget=builder.suite.budget,
        seed=seed,
        data_use=get_method(method).data_use,
        settings=settings or {},
        protocol=json.loads(json.dumps({"engine": engine_protocol or {}, "transform": transform})),
        weights_sha256=builder.weights_sha256[backbone],
        quantization=quantization,
        synthesis=synthesis,
        split=split,
        tuning=builder.suite.tuned.get(method, {}),
    )


class StageBuilder:
    """Makes each stage of a suite once; trials that need the same one share it."""

    def __init__(self, suite: Suite, context: RunContext, weights_sha256: Mapping[str, str]) -> None:
        from tasks.registry import get_task

        self.suite = suite
        self.weights_sha256 = weights_sha256
        self.stages: dict[str, Stage] = {}
        self._known_facts: dict[str, SplitFacts] = {}
        self._task_class = get_task(suite.task)
        self._task = self._task_class(context.data.get(self._task_class.data_name or ""))

    def variants(self, name: str) -> list[StageBuilder]:
        """This builder, and one per variant of the method; all fill the same stages."""
        builders = [self]
        for changes in self.suite.variants.get(name, ()):
            builders.append(self.varied(name, changes))
        return builders

    def varied(self, name: str, changes: Mapping[str, Any]) -> StageBuilder:
        """A builder with some of a method's settings changed, which fills the same stages.

        The key `tuned` of the changes says how a search found them and is no setting.
        """
        fields = {key: value for key, value in changes.items() if key != TUNED}
        tuned = {**self.suite.tuned, **({name: changes[TUNED]} if TUNED in changes else {})}
        overrides = {**self.suite.overrides, name: merged(self.suite.overrides.get(name, {}), fields)}
        varied = copy.copy(self)
        varied.suite = dataclasses.replace(self.suite, overrides=overrides, tuned=tuned, variants={})
        return varied

    def is_coupled(self, name: str) -> bool:
        """Whether the method's images depend on the student, so that they cannot be shared."""
        from methods.registry import get_method

        synthesizer = get_method(name).synthesizer
        return synthesizer is not None and synthesizer.needs_student

    def synthesis_config(self, name: str, engine: str) -> Any:
        """The synthesizer's config under budget and overrides.

        An anchor gets as many images as the largest of the suite's methods on the same engine (real images:
        at most what the tune split holds), unless the suite says how many: fewer would explain a difference.
        """
        from methods.registry import get_method
        from methods.settings import configure

        synthesizer = get_method(name).synthesizer
        assert synthesizer is not None
        overrides = self.suite.overrides.get(name, {})
        own = {key: value for key, value in overrides.items() if not isinstance(value, Mapping)}
        if name in ANCHORS and "images" not in own:
            own |= self._images_of_rivals(engine)
            if synthesizer.needs_real_images:
                wanted = configure(synthesizer.Config, self.suite.budget, own).images
                own["images"] = max(1, min(wanted, self._facts("tune").sample_count))
        return configure(synthesizer.Config, self.suite.budget, own)

    def _images_of_rivals(self, engine: str) -> dict[str, int]:
        from methods.registry import get_method

        rivals = [
            getattr(self.synthesis_config(name, engine), "images", 0)
            for name in self.suite.methods
            if engine in engines_of(self.suite, get_method(name))
        ]
        return {"images": max(rivals)} if rivals and max(rivals) > 0 else {}

    def engine_config(self, name: str, engine: str) -> Any:
        """The engine's config: budget, then the method's preset, the engine's overrides, the method's own."""
        from methods.registry import get_engine, get_method
        from methods.settings import configure

        method = get_method(name)
        preset: Mapping[str, Any] = {}
        if method.engine_settings is not None and engine == method.engine:
            preset = method.engine_settings(self.synthesis_config(name, engine))
        nested = self.suite.overrides.get(name, {}).get(engine, {})
        fields = {**preset, **self.suite.overrides.get(engine, {}), **nested}
        return configure(get_engine(engine).Config, self.suite.budget, fields)

    def reference(self, backbone: str, split: str = "report") -> Stage:
        """Scores the full-precision teacher on a split and keeps its logits."""
        return self._evaluation(backbone, f"fp32 {backbone}", {}, split)

    def synthesis(
        self, name: str, engine: str, backbone: str, seed: int, after: tuple[str, ...] = ()
    ) -> Stage:
        """Makes images from the teacher alone; bits and engine do not enter (an anchor's image count may)."""
        from methods.registry import get_method

        synthesizer = get_method(name).synthesizer
        assert synthesizer is not None
        files = [_file_of(synthesizer)]
        settings = {**self._teacher(backbone), **self._made_by(name, engine), "seed": seed}
        if synthesizer.needs_real_images:
            settings |= {"task": self.suite.task, "tune": self._facts("tune").digest}
            files.append(_file_of(self._task_class))
        return self._stage("synthesize", f"{name} {backbone} seed {seed}", settings, {}, files, after)

    def quantization(
        self,
        name: str,
        engine: str,
        backbone: str,
        bits: Bits,
        seed: int,
        synthesis: Stage | None,
        after: tuple[str, ...] = (),
    ) -> Stage:
        """Makes the student from the images of `synthesis`, or, where it is None, from images on the way."""
        from methods.registry import get_engine, get_method

        files = [_file_of(get_engine(engine))]
        settings = {
            **self._teacher(backbone),
            "engine": engine,
            "engine_config": _plain(self.engine_config(name, engine)),
            "bits": str(bits),
            "scope": self.suite.scope,
            "seed": seed,
        }
        if synthesis is None:
            synthesizer = get_method(name).synthesizer
            assert synthesizer is not None
            settings |= self._made_by(name, engine)
            files.append(_file_of(synthesizer))
        if self.suite.oracle:
            settings["oracle"] = {"task": self.suite.task, "samples": self._facts("report").digest}
        label = f"{name} ({engine}) {backbone} {bits} seed {seed}"
        parents = {"images": synthesis.key} if synthesis else {}
        return self._stage("quantize", label, settings, parents, files, after)

    def evaluation(
        self, backbone: str, quantization: Stage, reference: Stage, split: str = "report"
    ) -> Stage:
        """Scores a student against the task's split and against the teacher's logits on the same."""
        parents = {"student": quantization.key, "reference": reference.key}
        return self._evaluation(backbone, quantization.label, parents, split)

    def agreement(self, backbone: str, quantization: Stage, images: Stage) -> Stage:
        """Compares a student with the teacher on synthetic images; no real image takes part."""
        from harness.stages import agreement

        return self._stage(
            "agree",
            quantization.label,
            {**self._teacher(backbone), "split": "synthetic"},
            {"student": quantization.key, "images": images.key},
            [Path(agreement.__file__)],
        )

    def _evaluation(self, backbone: str, label: str, parents: Mapping[str, str], split: str) -> Stage:
        settings = {
            **self._teacher(backbone),
            "task": self.suite.task,
            "split": split,
            "samples": self._facts(split).digest,
        }
        return self._stage("evaluate", label, settings, parents, [_file_of(self._task_class)])

    def _facts(self, split: Any) -> SplitFacts:
        """Read once for all variants: a whole validation set has 50,000 names."""
        if split not in self._known_facts:
            self._known_facts[split] = self._task.facts(split)
        return self._known_facts[split]

    def _made_by(self, name: str, engine: str) -> dict[str, Any]:
        made = {"synthesizer": name, "config": _plain(self.synthesis_config(name, engine))}
        inputs = self._inputs_digest(name, engine)
        return made if inputs is None else {**made, "inputs": inputs}

    @functools.cache  # noqa: B019 - a builder lives as long as its plan is made
    def _inputs_digest(self, name: str, engine: str) -> str | None:
        from methods.registry import get_method

        synthesizer = get_method(name).synthesizer
        assert synthesizer is not None
        try:
            return synthesizer(self.synthesis_config(name, engine)).inputs_digest()
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from None

    def _teacher(self, backbone: str) -> dict[str, Any]:
        from backbones import SPECS

        spec = SPECS[backbone]
        return {
            "backbone": backbone,
            "weights_sha256": self.weights_sha256[backbone],
            "architecture": {"timm_name": spec.timm_name, **spec.model_settings},
            "transform": dataclasses.asdict(spec.data),
        }

    def _stage(
        self,
        kind: Kind,
        label: str,
        settings: Mapping[str, Any],
        parents: Mapping[str, str],
        files: list[Path],
        after: tuple[str, ...] = (),
    ) -> Stage:
        from backbones import SPECS, family_of

        teacher_code = (
            PROJECT / "backbones" / "families" / "explicit.py",
            PROJECT / "backbones" / "loading.py",
            _file_of(type(family_of(SPECS[settings["backbone"]]))),
        )
        settings = json.loads(json.dumps(settings))
        key = stage_key(kind, settings, parents, code_digest(*files, *teacher_code))
        return self.stages.setdefault(key, Stage(kind, label, settings, dict(parents), key, after))


def _plain(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _file_of(thing: type) -> Path:
    return Path(inspect.getfile(thing))
