"""The stage `agree`: how often a student answers as its teacher does on synthetic images; needs no data."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.stages.base import Artifact, RunContext, Stage
from harness.stages.cost import environment, measured
from harness.stages.data_guard import no_data
from harness.stages.evaluate import OUTCOMES, evaluation_cost, finished_now
from harness.stages.facts import EvaluationFacts, student_facts
from harness.stages.progress import StageProgress
from harness.stages.rebuild import stored_student, teacher_of
from harness.store import Store
from tasks.classification_scoring import Batch, Scores, score

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backbones import Backbone


def agree(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """Score the parent `student` against the teacher on the parent `images`."""
    teacher = teacher_of(stage, context)
    parent = student_facts(store, stage.parents["student"])
    with no_data(context):
        student = stored_student(store, stage.parents["student"], teacher)
    with measured(context.device) as cost:
        probe = probe_images(store, stage.parents["images"])
        scores = compared(student, teacher, probe, context.images_at_once)
    count = len(scores.outcomes["agreement"])
    facts = EvaluationFacts(
        environment=environment(context.device, context.threads),
        metrics=dict(scores.metrics),
        metric="agreement",
        images=count,
        samples=stage.parents["images"],
        whole=False,
        labelled=False,
        cost=evaluation_cost(context, cost, parent),
        images_per_second=count / max(cost.seconds, 1e-9),
        synthetic_images=parent.synthetic_images,
        gradient_shares=parent.gradient_shares.means(),
        notes=(*parent.notes, *scores.notes, *context.notes()),
        finished_at=finished_now(),
    )
    return Artifact({f"{OUTCOMES}{name}": values for name, values in scores.outcomes.items()}, facts)


def compared(student: nn.Module, teacher: Backbone, images: Tensor, batch_size: int) -> Scores:
    """How a student agrees with its teacher on images (n, C, H, W) in normalized space.

    The metrics are `agreement` in percent and, of classifiers, `kl` in nats.
    """
    if teacher.spec.is_detector:
        return _compared_detectors(student, teacher, images, batch_size)
    batches = _batches(images, batch_size)
    return score(student, teacher, batches, total=len(images), labelled=False)


def _compared_detectors(student: nn.Module, teacher: Backbone, images: Tensor, batch_size: int) -> Scores:
    import torch

    from tasks.detection import canvas_agreements

    with torch.inference_mode():
        same = torch.cat(
            [
                canvas_agreements(student, teacher.model, part.to(teacher.device))
                for part in torch.split(images, batch_size)
            ]
        )
    return Scores({"agreement": 100 * same.double().mean().item()}, {"agreement": same}, None, ())


@functools.lru_cache(maxsize=1)
def probe_images(store: Store, key: str) -> Tensor:
    """The images of a synthesis, (n, C, H, W) in normalized space; read once per process."""
    return store.images(key)["images"]


def _batches(images: Tensor, batch_size: int) -> Iterator[Batch]:
    import torch

    for part in torch.split(images, batch_size):
        yield Batch(part, torch.full((len(part),), -1))
