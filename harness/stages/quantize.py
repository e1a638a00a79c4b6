"""The stages `quantize`, which ends with a student, and `train`, a link of a training that is cut.

A link begins where its parent `training` ended, or with a fresh student, and stores all that going on needs.
The last piece of a training is the stage `quantize`, as is all the work of an engine that cannot be cut. Both
begin with the set of the parent `images`. Sets that have no stage of their own are made here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from harness.stages.base import Artifact, RunContext, Stage
from harness.stages.cost import cost_of, environment, measured
from harness.stages.data_guard import no_data
from harness.stages.facts import (
    SYNTHESIS_COSTS,
    StudentFacts,
    StudentRecipe,
    SynthesisFacts,
    TrainingFacts,
    training_facts,
)
from harness.stages.image_sets import StoredSet, generator_of_sets, set_tensors
from harness.stages.monitors import Monitors, Oracle, Watcher
from harness.stages.progress import StageProgress
from harness.stages.rebuild import (
    engine_of,
    generator_of,
    stored_training,
    student_state,
    synthesizer_of,
    teacher_of,
    training_tensors,
)
from harness.stages.retries import with_retries
from harness.store import Store
from methods.base import CoupledImages, FixedImages, QuantizationTask, TrainingEngine
from methods.bits import Bits
from methods.scope import WIDTH_OF_HEADS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from methods.base import ImageSource, SyntheticImages


@dataclass(frozen=True)
class _Made:
    """What a stage stores, and the last of the sets that it made."""

    tensors: dict[str, Tensor]
    images: SyntheticImages | None = None
    """None where it made none."""
    stored: dict[str, Tensor] | None = None
    """The set that is stored apart; None where another stage's is the last."""
    epoch: int = 0
    """Epoch that the set was made for."""
    synthesis_seconds: float = 0.0


class _Work:
    """One engine's work on one teacher; what differs between attempts is the seed alone."""

    def __init__(
        self, stage: Stage, context: RunContext, store: Store, progress: StageProgress, monitors: Monitors
    ) -> None:
        self.recipe = StudentRecipe.of(stage.settings)
        with no_data(context):
            self.engine = engine_of(self.recipe)
        self._settings, self._progress, self._monitors = stage.settings, progress, monitors
        self._parts = context.parts
        self._teacher = teacher_of(stage, context)
        parents = stage.parents
        self.images = (
            StoredSet.read(store, parents["images"], self._teacher.device) if "images" in parents else None
        )
        self._state = stored_training(store, parents["training"]) if "training" in parents else None

    def make(self, attempt: int) -> _Made:
        """The student, or its training as it is after this stage, and the sets that were made on the way."""
        if "synthesizer" not in self._settings:
            assert self.images is not None
            return _Made(self._student(FixedImages(self.images.made), attempt))
        generator = generator_of_sets(self._settings["seed"], attempt, self.images)
        source = CoupledImages(
            synthesizer_of(self._settings),
            self._teacher,
            generator,
            self._progress,
            latest=self.images.made if self.images else None,
            made_for=self.images.facts.epoch if self.images else 0,
        )
        tensors = self._student(source, attempt)
        made, stored = source.latest if source.has_made_some else None, None
        # No plan can tell whether an engine that cannot be cut asks for further sets: it keeps its last.
        if source.has_made_some or not isinstance(self.engine, TrainingEngine):
            assert source.latest is not None
            stored = set_tensors(source.latest, generator)
        return _Made(tensors, made, stored, source.made_for, source.seconds)

    def _student(self, source: ImageSource, attempt: int) -> dict[str, Tensor]:
        task = QuantizationTask(
            self._teacher,
            source,
            Bits.parse(self.recipe.bits),
            generator_of(self._settings["seed"], f"quantize/{attempt}"),
            progress=self._progress,
            on_epoch=self._monitors.or_none(),
            parts=self._parts,
        )
        if not isinstance(self.engine, TrainingEngine):
            return student_state(self.engine.quantize(task))
        training = self.engine.resume(task, self._state) if self._state else self.engine.begin(task)
        training.run(self._settings.get("until", self.engine.epochs))
        if "until" in self._settings:
            return training_tensors(training.state())
        return student_state(training.finished())


def quantize(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """Make the student of `stage.settings`, or with `until` its training after so many epochs.

    A collapse of images that are made here is tried once more, from what the parents left, with the next
    seed. Raises SynthesisFailed and TrainingFailed, StageStopped when a search wants no more of it, and
    DataAccessRefused when a method looks for a data set.
    """
    before = training_facts(store, stage.parents["training"]) if "training" in stage.parents else None
    best = before.oracle if before else None
    oracle = Oracle(stage, context, best or 0.0) if "oracle" in stage.settings else None
    watcher = Watcher(context.watch, stage, context, store, progress) if context.watch else None
    monitors = Monitors([monitor for monitor in (oracle, watcher) if monitor is not None])
    work = _Work(stage, context, store, progress, monitors)
    with no_data(context), measured(context.device) as cost:
        made, notes = with_retries(work.make)
    scope = work.engine.scope
    heads = () if scope == "whole" else (f"neck and heads {WIDTH_OF_HEADS[scope]}",)
    facts = TrainingFacts(
        environment=environment(context.device, context.threads),
        cost=cost_of(
            context,
            cost,
            synthesis=None if made.images is None else made.synthesis_seconds,
            quantization=cost.seconds - made.synthesis_seconds - monitors.seconds,
        ),
        synthetic_images=0,
        final_losses={},
        oracle=oracle.best if oracle else None,
        notes=(*heads, *_of_size(made.tensors), *notes, *context.notes()),
    )
    facts = _with_images(facts, made, work.images.facts if work.images else None)
    if before is not None:
        training = before.cost.without(*SYNTHESIS_COSTS)  # which that of the images includes
        facts = facts.after(replace(before, cost=training))
    if "until" not in stage.settings:
        known = {field.name: getattr(facts, field.name) for field in fields(facts)}
        facts = StudentFacts(**known, recipe=work.recipe)
    return Artifact(made.tensors, facts, made.stored)


def _of_size(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What a student holds beyond quantized weights, for its record."""
    from methods.quantization.compensation import compensation_bytes

    extra = compensation_bytes(tensors)
    return (f"compensation adds {extra:,} bytes to the student",) if extra else ()


def _with_images(facts: TrainingFacts, made: _Made, parent: SynthesisFacts | None) -> TrainingFacts:
    """The facts with what is known of the images: from their own stage, or from those made on the way."""
    if made.images is not None:
        facts = replace(
            facts,
            synthetic_images=len(made.images.images),
            final_losses=dict(made.images.final_losses),
            gradient_shares=made.images.gradient_shares,
            epoch=made.epoch,
        )
    else:
        assert parent is not None
        facts = replace(
            facts,
            synthetic_images=parent.synthetic_images,
            final_losses=parent.final_losses,
            gradient_shares=parent.gradient_shares,
            epoch=parent.epoch,
        )
    return facts if parent is None else facts.after(parent)
