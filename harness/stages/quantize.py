"""The stage `quantize`: a quantized copy of the teacher, from stored images or from some made on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.stages.base import Artifact, RunContext, Stage
from harness.stages.cost import environment, measured
from harness.stages.data_guard import no_data
from harness.stages.facts import Cost, StudentFacts, StudentRecipe, synthesis_facts
from harness.stages.monitors import Monitors, Oracle, Watcher
from harness.stages.progress import StageProgress
from harness.stages.rebuild import engine_of, generator_of, student_state, synthesizer_of, teacher_of
from harness.stages.retries import with_retries
from harness.stages.synthesize import image_tensors
from harness.store import Store
from methods.base import CoupledImages, FixedImages, QuantizationTask, SyntheticImages
from methods.bits import Bits
from methods.scope import WIDTH_OF_HEADS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from methods.base import ImageSource


@dataclass(frozen=True)
class _Made:
    """A student, and the images that were made with it."""

    student: nn.Module
    images: SyntheticImages | None = None
    """None where a stage before made them."""
    synthesis_seconds: float = 0.0


class _Quantization:
    """One engine's work on one teacher; what differs between attempts is the seed alone."""

    def __init__(
        self, stage: Stage, context: RunContext, progress: StageProgress, monitors: Monitors
    ) -> None:
        self.recipe = StudentRecipe.of(stage.settings)
        with no_data(context):
            self.engine = engine_of(self.recipe)
        self._settings, self._progress, self._monitors = stage.settings, progress, monitors
        self._teacher = teacher_of(stage, context)

    def from_stored(self, stored: Mapping[str, Tensor]) -> _Made:
        """The student of the tensors that a `synthesize` stage made."""
        device = self._teacher.device
        images = SyntheticImages(stored["images"].to(device), stored["labels"].to(device))
        return _Made(self._student(FixedImages(images), 0))

    def from_coupled(self, attempt: int) -> _Made:
        """The student of images that depend on it."""
        generator = generator_of(self._settings["seed"], f"synthesize/{attempt}")
        synthesizer = synthesizer_of(self._settings)
        source = CoupledImages(synthesizer, self._teacher, generator, self._progress)
        student = self._student(source, attempt)
        assert source.latest is not None
        return _Made(student, source.latest, source.seconds)

    def _student(self, source: ImageSource, attempt: int) -> nn.Module:
        return self.engine.quantize(
            QuantizationTask(
                self._teacher,
                source,
                Bits.parse(self.recipe.bits),
                generator_of(self._settings["seed"], f"quantize/{attempt}"),
                progress=self._progress,
                on_epoch=self._monitors.or_none(),
            )
        )


def quantize(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """Make the student of `stage.settings` from the parent `images`; without one its images come with it.

    Raises SynthesisFailed and TrainingFailed, StageStopped when a search wants no more of it, and
    DataAccessRefused when a method looks for a data set.
    """
    oracle = Oracle(stage, context) if "oracle" in stage.settings else None
    watcher = Watcher(context.watch, stage, context, store, progress) if context.watch else None
    monitors = Monitors([monitor for monitor in (oracle, watcher) if monitor is not None])
    work = _Quantization(stage, context, progress, monitors)
    notes: tuple[str, ...] = ()
    with no_data(context), measured(context.device) as cost:
        if "images" in stage.parents:
            made = work.from_stored(store.tensors(stage.parents["images"]))
        else:
            made, notes = with_retries(work.from_coupled)
    scope = work.engine.scope
    facts = StudentFacts(
        environment=environment(context.device, context.threads),
        recipe=work.recipe,
        cost=Cost(
            quantization_seconds=cost.seconds - made.synthesis_seconds - monitors.seconds,
            peak_memory_mb=cost.peak_memory_mb,
        ),
        synthetic_images=0,
        oracle=oracle.best if oracle else None,
        notes=notes if scope == "whole" else (f"neck and heads {WIDTH_OF_HEADS[scope]}", *notes),
    )
    facts = _with_images(facts, made, stage, store)
    tensors = image_tensors(made.images) if made.images else {}
    return Artifact({**student_state(made.student), **tensors}, facts)


def _with_images(facts: StudentFacts, made: _Made, stage: Stage, store: Store) -> StudentFacts:
    """The facts with what is known of the images: from their own stage, or from those made on the way."""
    if made.images is not None:
        return replace(
            facts,
            cost=replace(facts.cost, synthesis_seconds=made.synthesis_seconds),
            synthetic_images=len(made.images.images),
            final_losses=dict(made.images.final_losses),
            gradient_shares=made.images.gradient_shares,
        )
    parent = synthesis_facts(store, stage.parents["images"])
    return replace(
        facts,
        cost=facts.cost.after(parent.cost),
        synthetic_images=parent.synthetic_images,
        gradient_shares=parent.gradient_shares,
        notes=(*parent.notes, *facts.notes),
    )
