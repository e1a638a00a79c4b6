"""The stage `synthesize`: one set of images; the real-data reference draws its own from the task.

A first set is made from the teacher alone. A later one follows the set before, the parent `images`, and is
made with the student as its training stands, the parent `training`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from harness.stages.base import Artifact, RunContext, Stage
from harness.stages.cost import cost_of, environment, measured
from harness.stages.data_guard import no_data
from harness.stages.facts import StudentRecipe, SynthesisFacts
from harness.stages.image_sets import StoredSet, generator_of_sets, set_tensors
from harness.stages.progress import StageProgress
from harness.stages.rebuild import student_of, synthesizer_of, task_of, teacher_of
from harness.stages.retries import with_retries
from harness.store import Store
from methods.base import SynthesisTask

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from backbones import Backbone
    from methods.base import Synthesizer, SyntheticImages


class _Made(NamedTuple):
    images: SyntheticImages
    generator: Generator


def synthesize(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """Make the images of `stage.settings`; a collapse is tried once more with the next seed.

    Raises SynthesisFailed, and DataAccessRefused when a data-free method looks for a data set.
    """
    teacher = teacher_of(stage, context)
    seed, epoch = stage.settings["seed"], stage.settings.get("epoch", 0)
    with no_data(context):
        synthesizer = synthesizer_of(stage.settings)
        student = None
        if "training" in stage.parents:
            recipe = StudentRecipe.of(stage.settings)
            student = student_of(recipe, store.tensors(stage.parents["training"]), teacher)
    before = (
        StoredSet.read(store, stage.parents["images"], teacher.device) if "images" in stage.parents else None
    )
    real = _real_images(synthesizer, stage, context, teacher)

    def make(attempt: int) -> _Made:
        generator = generator_of_sets(seed, attempt, before)
        previous = before.made if before else None
        task = SynthesisTask(teacher, generator, progress, student, epoch, previous, real)
        return _Made(synthesizer.synthesize(task), generator)

    with no_data(context, reference=real is not None), measured(context.device) as cost:
        made, notes = with_retries(make)
    facts = SynthesisFacts(
        environment=environment(context.device, context.threads),
        cost=cost_of(context, cost, synthesis=cost.seconds),
        synthetic_images=len(made.images.images),
        final_losses=dict(made.images.final_losses),
        gradient_shares=made.images.gradient_shares,
        epoch=epoch,
        notes=notes,
    )
    if before is not None:
        facts = facts.after(before.facts)
    return Artifact(set_tensors(made.images, made.generator if synthesizer.needs_student else None), facts)


def _real_images(
    synthesizer: Synthesizer, stage: Stage, context: RunContext, teacher: Backbone
) -> tuple[Tensor, Tensor] | None:
    """Images and labels of the real-data reference, read before its work is measured; None for any other."""
    if not synthesizer.needs_real_images:
        return None
    task = task_of(stage.settings["task"], context)
    count = synthesizer.config.images
    return task.calibration_images(teacher, count, stage.settings["seed"])
