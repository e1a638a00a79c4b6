"""How often a student answers as its teacher does on synthetic images: a score that needs no data at all."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.stages.base import RunContext, Stage
from harness.stages.cost import environment, measured
from harness.stages.run_stage import Artifact, merged_costs, stored_student, teacher_of
from harness.store.artifacts import Store

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backbones import Backbone
    from tasks.classification_scoring import Batch, Scores


def agree(stage: Stage, context: RunContext, store: Store, progress: Any) -> Artifact:
    """Score the parent `student` against the teacher on the parent `images`."""
    teacher = teacher_of(stage, context)
    parent: Mapping[str, Any] = store.meta(stage.parents["student"])
    student = stored_student(store, stage.parents["student"], teacher, parent)
    with measured(context.device) as cost:
        scores = compared(student, teacher, probe_images(store, stage.parents["images"]), context.batch_size)
    count = len(scores.outcomes["agreement"])
    seconds = {"evaluation_seconds": cost.seconds, "peak_memory_mb": cost.peak_memory_mb}
    return {f"outcomes.{name}": values for name, values in scores.outcomes.items()}, {
        "metrics": scores.metrics,
        "metric": "agreement",
        "images": count,
        "samples": stage.parents["images"],
        "whole": False,
        "labelled": False,
        "cost": {
            **merged_costs(parent["cost"], seconds),
            "images_per_second": count / max(cost.seconds, 1e-9),
            "synthetic_images": parent["synthetic_images"],
        },
        "notes": [*parent["notes"], *scores.notes],
        "environment": environment(context.device, context.threads),
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def compared(student: nn.Module, teacher: Backbone, images: Tensor, batch_size: int) -> Scores:
    """`agreement` in percent of a student with its teacher on images (n, C, H, W); `kl` of classifiers."""
    from tasks.classification_scoring import score

    if teacher.spec.is_detector:
        return _compared_detectors(student, teacher, images, batch_size)
    batches = _batches(images, batch_size)
    return score(student, teacher, batches, total=len(images), labelled=False)


def _compared_detectors(student: nn.Module, teacher: Backbone, images: Tensor, batch_size: int) -> Scores:
    import torch

    from tasks.classification_scoring import Scores
    from tasks.detection import canvas_agreements

    with torch.inference_mode():
        same = torch.cat(
            [
                canvas_agreements(student, teacher.model, part.to(teacher.device))
                for part in images.split(batch_size)
            ]
        )
    return Scores({"agreement": 100 * same.double().mean().item()}, {"agreement": same}, None, ())


def probe_images(store: Store, key: str) -> Tensor:
    """The images of a synthesis, (n, C, H, W) in normalized space; read once per process."""
    return _read_once(store.root, key)


@functools.lru_cache(maxsize=1)
def _read_once(root: Path, key: str) -> Tensor:
    return Store(root).tensors(key)["images"]


def _batches(images: Tensor, batch_size: int) -> Iterator[Batch]:
    import torch

    from tasks.classification_scoring import Batch

    for part in images.split(batch_size):
        yield Batch(part, torch.full((len(part),), -1))
