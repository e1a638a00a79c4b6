"""The stage `synthesize`: images from the teacher alone; the real-data reference draws from the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.stages.base import Artifact, RunContext, Stage
from harness.stages.cost import environment, measured
from harness.stages.data_guard import no_data
from harness.stages.facts import Cost, SynthesisFacts
from harness.stages.progress import StageProgress
from harness.stages.rebuild import generator_of, synthesizer_of, task_of, teacher_of
from harness.stages.retries import with_retries
from harness.store import Store
from methods.base import SynthesisTask

if TYPE_CHECKING:
    from torch import Tensor

    from backbones import Backbone
    from methods.base import Synthesizer, SyntheticImages


def synthesize(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """Make the images of `stage.settings`; a collapse is tried once more with the next seed.

    Raises SynthesisFailed, and DataAccessRefused when a data-free method looks for a data set.
    """
    teacher = teacher_of(stage, context)
    with no_data(context):
        synthesizer = synthesizer_of(stage.settings)
    seed: int = stage.settings["seed"]
    real = _real_images(synthesizer, stage, context, teacher)

    def make(attempt: int) -> SyntheticImages:
        generator = generator_of(seed, f"synthesize/{attempt}")
        return synthesizer.synthesize(SynthesisTask(teacher, generator, progress, real_images=real))

    with no_data(context, reference=real is not None), measured(context.device) as cost:
        images, notes = with_retries(make)
    facts = SynthesisFacts(
        environment=environment(context.device, context.threads),
        cost=Cost(synthesis_seconds=cost.seconds, peak_memory_mb=cost.peak_memory_mb),
        synthetic_images=len(images.images),
        final_losses=dict(images.final_losses),
        gradient_shares=images.gradient_shares,
        notes=notes,
    )
    return Artifact(image_tensors(images), facts)


def image_tensors(images: SyntheticImages) -> dict[str, Tensor]:
    """A set of images under the names that other stages and the pictures look for."""
    return {"images": images.images.float(), "labels": images.labels}


def _real_images(
    synthesizer: Synthesizer, stage: Stage, context: RunContext, teacher: Backbone
) -> tuple[Tensor, Tensor] | None:
    """Images and labels of the real-data reference, read before its work is measured; None for any other."""
    if not synthesizer.needs_real_images:
        return None
    task = task_of(stage.settings["task"], context)
    count = synthesizer.config.images
    return task.calibration_images(teacher, count, stage.settings["seed"])
