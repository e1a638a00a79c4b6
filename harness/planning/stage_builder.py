"""Makes the stages of a suite, each once: its settings, the code that decides it, and its content key."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from backbones.registry import SPECS, family_of
from harness.errors import UsageError
from harness.planning.code_digest import PROJECT, code_digest
from harness.planning.plan import KEY_RECIPE, stage_key
from harness.planning.task_facts import TaskFacts
from harness.stages import agreement
from harness.stages.base import Kind, Stage, Way
from harness.stages.precision import EXACT
from harness.stages.synthesize import SHARD
from harness.suites.suite import ANCHORS, TUNED, Suite, engines_of, merged
from methods.base import Synthesizer
from methods.bits import Bits
from methods.registry import get_engine, get_method
from methods.settings import configure
from tasks.base import Split
from tasks.registry import get_task

_TEACHER_CODE = (
    PROJECT / "backbones" / "families" / "explicit.py",
    PROJECT / "backbones" / "loading.py",
)
"""What decides a teacher's answers beside its weights and its family: part of every stage."""
STEPS_PER_SHARD = 10_000
"""Steps of synthesis that one stage makes at most: 5 batches of 2,000, minutes on a GPU."""

_Asked = ParamSpec("_Asked")
_Made = TypeVar("_Made")


def _once(
    make: Callable[Concatenate[StageBuilder, _Asked], _Made],
) -> Callable[Concatenate[StageBuilder, _Asked], _Made]:
    """Lets a builder make once, for every set of arguments, what thousands of its trials ask for."""

    def made(builder: StageBuilder, /, *asked: _Asked.args, **named: _Asked.kwargs) -> _Made:
        known: dict[Any, _Made] = builder.known.setdefault(make.__name__, {})
        place = (*asked, *named.items())
        if place not in known:
            known[place] = make(builder, *asked, **named)
        return known[place]

    functools.update_wrapper(made, make)
    return made


class StageBuilder:
    """Makes each stage of a suite once; trials that need the same one share it.

    Stages and trials also share the plain values that their settings consist of: nobody changes them.
    """

    def __init__(self, suite: Suite, weights_sha256: Mapping[str, str], facts: TaskFacts) -> None:
        self.suite = suite
        self.weights_sha256 = weights_sha256
        self.stages: dict[str, Stage] = {}
        self.known: dict[str, dict[Any, Any]] = {}
        """What `_once` keeps, by the name of what makes it."""
        self._facts = facts

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
        varied.known = {}
        varied.suite = dataclasses.replace(self.suite, overrides=overrides, tuned=tuned, variants={})
        return varied

    def is_coupled(self, name: str) -> bool:
        """Whether the method's images depend on the student, so that they cannot be shared."""
        synthesizer = get_method(name).synthesizer
        return synthesizer is not None and synthesizer.needs_student

    def synthesizer(self, name: str, engine: str) -> Synthesizer:
        """The method's synthesizer with its config."""
        synthesizer = get_method(name).synthesizer
        assert synthesizer is not None
        return synthesizer(self.synthesis_config(name, engine))

    @_once
    def synthesis_config(self, name: str, engine: str) -> Any:
        """The synthesizer's config under budget and overrides.

        An anchor gets as many images as the largest of the suite's methods on the same engine (real images:
        at most what the tune split holds), unless the suite says how many: fewer would explain a difference.
        """
        synthesizer = get_method(name).synthesizer
        assert synthesizer is not None
        overrides = self.suite.overrides.get(name, {})
        own = {key: value for key, value in overrides.items() if not isinstance(value, Mapping)}
        if name in ANCHORS and "images" not in own:
            own |= self._images_of_rivals(engine)
            if synthesizer.needs_real_images:
                wanted = configure(synthesizer.Config, self.suite.budget, own).images
                own["images"] = min(wanted, self._facts.holding("tune", 1, name).sample_count)
        config = configure(synthesizer.Config, self.suite.budget, own)
        if synthesizer.needs_real_images:
            self._facts.holding("tune", config.images, name)
        return config

    def _images_of_rivals(self, engine: str) -> dict[str, int]:
        rivals = [
            getattr(self.synthesis_config(name, engine), "images", 0)
            for name in self.suite.methods
            if engine in engines_of(self.suite, get_method(name))
        ]
        return {"images": max(rivals)} if rivals and max(rivals) > 0 else {}

    @_once
    def notes(self, name: str, engine: str) -> tuple[str, ...]:
        """What is known of a row before it runs: that an anchor has fewer or more images than its rivals."""
        rivals = self._images_of_rivals(engine).get("images", 0) if name in ANCHORS else 0
        own = getattr(self.synthesis_config(name, engine), "images", 0)
        if rivals in (0, own):
            return ()
        chosen = "images" in self.suite.overrides.get(name, {})
        reason = "the suite says so" if chosen else "the tuning split holds no more"
        return (f"{own} images beside methods that have {rivals}: {reason}",)

    @_once
    def engine_config(self, name: str, engine: str) -> Any:
        """The engine's config: budget, then the method's preset, the engine's overrides, the method's own."""
        method = get_method(name)
        preset: Mapping[str, Any] = {}
        if method.engine_settings is not None and engine == method.engine:
            preset = method.engine_settings(self.synthesis_config(name, engine))
        nested = self.suite.overrides.get(name, {}).get(engine, {})
        fields = {**preset, **self.suite.overrides.get(engine, {}), **nested}
        return configure(get_engine(engine).Config, self.suite.budget, fields)

    @_once
    def settings(self, name: str, engine: str) -> dict[str, dict[str, Any]]:
        """`synthesizer` and `engine` -> every hyper-parameter of a row, as plain values."""
        return {
            "synthesizer": plain(self.synthesis_config(name, engine)),
            "engine": plain(self.engine_config(name, engine)),
        }

    @_once
    def protocol(self, name: str, engine: str, bits: Bits) -> dict[str, Any]:
        """What the engine quantizes and how, as plain values."""
        made = get_engine(engine)(self.engine_config(name, engine), self.suite.scope)
        return dict(_plain(made.protocol(bits)))

    @_once
    def code(self, name: str, engine: str, backbone: str) -> str:
        """Digest of the code that decides a trial's stages."""
        return trial_code(name, engine, backbone, self.suite.task)

    def reference(self, backbone: str, split: Split = "report") -> Stage:
        """The stage that scores the full-precision teacher on a split and keeps its logits."""
        return self._evaluation(backbone, f"fp32 {backbone}", {}, split)

    def synthesis(self, name: str, engine: str, backbone: str, seed: int) -> Stage:
        """Makes images from the teacher alone; bits and engine do not enter (an anchor's image count may)."""
        synthesizer = get_method(name).synthesizer
        assert synthesizer is not None
        files = [_file_of(synthesizer)]
        settings = {**self._teacher(backbone), **self._made_by(name, engine), "seed": seed}
        if synthesizer.needs_real_images:
            settings |= {"task": self.suite.task, "tune": self._facts("tune").digest}
            files.append(_file_of(self._facts.task_class))
        label = f"{name} {backbone} seed {seed}"
        return self._set(self.synthesizer(name, engine), label, settings, {}, files, {})

    def quantization(
        self,
        name: str,
        engine: str,
        backbone: str,
        bits: Bits,
        seed: int,
        first: Stage | None,
        after: tuple[str, ...] = (),
        parents: Mapping[str, str] | None = None,
        until: int | None = None,
    ) -> Stage:
        """Makes the student, or with `until` its training after so many epochs.

        `first` makes the set that the student begins with; without it images are made on the way. It decides
        the key, and is read where nothing is said of `parents`.
        """
        settings = self._student(name, engine, backbone, bits, seed)
        kind, label = "quantize", self._label(name, engine, backbone, bits, seed)
        if until is not None:
            settings["until"] = until
            kind, label = "train", f"{label} to epoch {until}"
        origin = {"images": first.key} if first else {}
        return self._stage(kind, label, settings, parents or origin, self._files(name, engine), after, origin)

    def later_set(
        self,
        name: str,
        engine: str,
        backbone: str,
        bits: Bits,
        seed: int,
        first: Stage | None,
        epoch: int,
        parents: Mapping[str, str],
    ) -> Stage:
        """Makes a set with the student as it is before this epoch; its key is decided by `first`."""
        settings = {**self._student(name, engine, backbone, bits, seed), "epoch": epoch}
        label = f"{self._label(name, engine, backbone, bits, seed)} for epoch {epoch}"
        origin = {"images": first.key} if first else {}
        synthesizer, files = self.synthesizer(name, engine), self._files(name, engine)
        return self._set(synthesizer, label, settings, parents, files, origin)

    def _set(
        self,
        synthesizer: Synthesizer,
        label: str,
        settings: Mapping[str, Any],
        parents: Mapping[str, str],
        files: list[Path],
        origin: Mapping[str, str],
    ) -> Stage:
        """Makes a set, from shards where it is much work; its key is the same either way."""
        shards: dict[str, Stage] = {}
        for part in shards_of(synthesizer, settings.get("epoch", 0)):
            chosen = {**settings, "batches": [part.start, part.stop]}
            said = f"{label} batches {part.start + 1} to {part.stop} of {synthesizer.batches}"
            shard = self._stage("shard", said, chosen, parents, files, origin=origin)
            shards[f"{SHARD}{part.start:06}"] = shard
        before = {role: key for role, key in parents.items() if role == "images" or not shards}
        keys = {role: shard.key for role, shard in shards.items()}
        joined = self._stage("synthesize", label, settings, {**before, **keys}, files, origin=origin)
        self.lead_to((joined,), list(shards.values()))
        return self.stages[joined.key]

    def lead_to(self, goals: Sequence[Stage], stages: Sequence[Stage]) -> None:
        """Remember that the stages, with the shards that they are joined from, lead to the goals alone."""
        if not stages:
            return
        shards = [key for stage in stages for role, key in stage.parents.items() if role.startswith(SHARD)]
        ends = tuple(dataclasses.replace(goal, ways=()) for goal in goals)
        way = Way(ends, (*shards, *(stage.key for stage in stages)))
        for key in (*way.keys, *(goal.key for goal in goals)):
            stage = self.stages[key]
            if way not in stage.ways:
                self.stages[key] = dataclasses.replace(stage, ways=(*stage.ways, way))

    def _student(self, name: str, engine: str, backbone: str, bits: Bits, seed: int) -> dict[str, Any]:
        """What decides a student, beside the set that it begins with."""
        return {
            **self._teacher(backbone),
            "engine": engine,
            "engine_config": self.settings(name, engine)["engine"],
            "bits": str(bits),
            "scope": self.suite.scope,
            "seed": seed,
            **(self._made_by(name, engine) if self.is_coupled(name) else {}),
            **({"oracle": self._oracle()} if self.suite.oracle else {}),
        }

    def _oracle(self) -> dict[str, Any]:
        return {"task": self.suite.task, "samples": self._facts("report").digest}

    def _files(self, name: str, engine: str) -> list[Path]:
        """The code that decides a student."""
        files = [_file_of(get_engine(engine))]
        return [*files, _file_of(type(self.synthesizer(name, engine)))] if self.is_coupled(name) else files

    def _label(self, name: str, engine: str, backbone: str, bits: Bits, seed: int) -> str:
        return f"{name} ({engine}) {backbone} {bits} seed {seed}"

    def evaluation(
        self, backbone: str, quantization: Stage, reference: Stage, split: Split = "report"
    ) -> Stage:
        """Scores a student against the task's split and against the teacher's logits on the same."""
        parents = {"student": quantization.key, "reference": reference.key}
        return self._evaluation(backbone, quantization.label, parents, split)

    def agreement(self, backbone: str, quantization: Stage, images: Stage) -> Stage:
        """Compares a student with the teacher on synthetic images; no real image takes part."""
        return self._stage(
            "agree",
            quantization.label,
            {**self._teacher(backbone), "split": "synthetic"},
            {"student": quantization.key, "images": images.key},
            [Path(agreement.__file__)],
        )

    def _evaluation(self, backbone: str, label: str, parents: Mapping[str, str], split: Split) -> Stage:
        settings = {
            **self._teacher(backbone),
            "task": self.suite.task,
            "split": split,
            "samples": self._facts.holding(split, 1, "scoring").digest,
        }
        return self._stage("evaluate", label, settings, parents, [_file_of(self._facts.task_class)])

    def _made_by(self, name: str, engine: str) -> dict[str, Any]:
        made = {"synthesizer": name, "config": self.settings(name, engine)["synthesizer"]}
        inputs = self._inputs_digest(name, engine)
        return made if inputs is None else {**made, "inputs": inputs}

    @_once
    def _inputs_digest(self, name: str, engine: str) -> str | None:
        try:
            return self.synthesizer(name, engine).inputs_digest()
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from None

    @_once
    def _teacher(self, backbone: str) -> dict[str, Any]:
        spec = SPECS[backbone]
        return {
            "backbone": backbone,
            "weights_sha256": self.weights_sha256[backbone],
            "architecture": _plain({"timm_name": spec.timm_name, **spec.model_settings}),
            "transform": plain(spec.data),
        }

    def _stage(
        self,
        kind: Kind,
        label: str,
        settings: Mapping[str, Any],
        parents: Mapping[str, str],
        files: list[Path],
        after: tuple[str, ...] = (),
        origin: Mapping[str, str] | None = None,
    ) -> Stage:
        """The stage of these settings; its key holds `origin` where that decides what the parents are."""
        if self.suite.precision != EXACT:  # keys of exact stages do not say so
            settings = {**settings, "precision": self.suite.precision}
        family = _file_of(type(family_of(SPECS[settings["backbone"]])))
        code = code_digest(*files, *_TEACHER_CODE, family)
        key = stage_key(kind, settings, parents if origin is None else origin, code)
        return self.stages.setdefault(key, Stage(kind, label, settings, dict(parents), key, after))


def trial_code(method: str, engine: str, backbone: str, task: str) -> str:
    """Digest of the code that decides a trial's stages: it changes where one of their keys does for code.

    Raises ValueError for names that are not registered.
    """
    if backbone not in SPECS:
        raise ValueError(f"unknown backbone '{backbone}'")
    synthesizer = get_method(method).synthesizer
    things = [get_task(task), type(family_of(SPECS[backbone]))]
    things += [] if synthesizer is None else [synthesizer, get_engine(engine)]
    return f"{KEY_RECIPE}.{code_digest(*map(_file_of, things), *_TEACHER_CODE)}"


def shards_of(synthesizer: Synthesizer, epoch: int) -> list[range]:
    """The batches of each shard of a set, of `STEPS_PER_SHARD` steps at most; none where one would do."""
    batches = synthesizer.batches
    each = max(1, STEPS_PER_SHARD // max(1, synthesizer.steps_at(epoch)))
    if each >= batches:
        return []
    return [range(start, min(start + each, batches)) for start in range(0, batches, each)]


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values."""
    return dict(_plain(dataclasses.asdict(config)))


def _plain(value: Any) -> Any:
    """A value as reading its JSON gives it."""
    return json.loads(json.dumps(value))


@functools.cache
def _file_of(thing: type) -> Path:
    return Path(inspect.getfile(thing))
