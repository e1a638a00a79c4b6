"""What a search maximises or minimises, and how a try's artifacts become its values.

accuracy        the task's metric on the split `tune`, which no leaderboard reads; percent, higher is better
closeness       minus the divergence (KL) of the student's answers from the teacher's, on held-out synthetic
                images; nats, 0 at best; data-free; of classifiers
agreement       the student's answers that are the teacher's, on the same images; percent; data-free
seconds         synthesis and quantization, wall-clock
gpu_seconds     the same where they run on a GPU, times the GPUs a stage holds
peak_memory_mb  of synthesis, quantization and evaluation
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from backbones import Backbone
from backbones.names import shown, suggestion
from harness.errors import UsageError
from harness.stages.agreement import compared, probe_images
from harness.stages.base import RunContext
from harness.stages.facts import EvaluationFacts
from harness.stages.rebuild import task_of
from harness.store import Store
from tasks.base import EvaluationOptions

if TYPE_CHECKING:
    from torch import nn

DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {
    "accuracy": "maximize",
    "closeness": "maximize",
    "agreement": "maximize",
    "seconds": "minimize",
    "gpu_seconds": "minimize",
    "peak_memory_mb": "minimize",
}
QUALITIES = ("accuracy", "closeness", "agreement")
DATA_FREE = ("closeness", "agreement")
"""Those that are measured on synthetic images."""
_REPORTS = 10
"""Values that a try reports while it trains."""


def parse_objectives(
    text: str | None, data_use: str, device: str, *, is_detector: bool = False
) -> tuple[str, ...]:
    """The objectives of `accuracy,seconds`; without text the one that suits what the method may see.

    Raises UsageError with every fault.
    """
    if not text:
        data_free = "agreement" if is_detector else "closeness"
        return ("accuracy",) if data_use == "real images" else (data_free,)
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    faults = [
        f"unknown objective '{shown(n)}'{suggestion(n, DIRECTIONS)}" for n in names if n not in DIRECTIONS
    ]
    if len(set(names)) != len(names):
        faults.append("an objective is given twice")
    if not faults and sum(name in QUALITIES for name in names) != 1:
        faults.append("exactly one of accuracy, closeness and agreement is needed; the costs come beside it")
    if "closeness" in names and is_detector:
        faults.append("closeness compares the answers of classifiers; on detectors use agreement")
    if "gpu_seconds" in names and not device.startswith("cuda"):
        faults.append("gpu_seconds needs a GPU (--device cuda); on this device use seconds")
    if faults:
        raise UsageError.of([f"--objective {shown(text)}: {fault}" for fault in faults])
    return names


def quality_of(objectives: Sequence[str]) -> str:
    """`accuracy`, `closeness` or `agreement`."""
    return next(name for name in objectives if name in QUALITIES)


def closeness_of(metrics: Mapping[str, float]) -> float:
    """Minus the divergence among an agreement's metrics; nan where it was not measured."""
    return -metrics.get("kl", math.nan)


def values_of(objectives: Sequence[str], evaluations: Sequence[EvaluationFacts]) -> list[float]:
    """A try's values, each the mean over its seeds; `evaluations` are those of the seeds."""

    def value(name: str, facts: EvaluationFacts) -> float:
        if name == "closeness":
            return closeness_of(facts.metrics)
        if name in QUALITIES:
            return facts.metrics.get(facts.metric, math.nan)
        if name == "peak_memory_mb":
            found = facts.cost.peak_memory_mb
        elif name == "gpu_seconds":
            found = facts.cost.making_gpu_seconds
        else:
            found = facts.cost.making_seconds
        return math.nan if found is None else found  # parts of it were made on another device

    return [statistics.fmean(value(name, facts) for facts in evaluations) for name in objectives]


@dataclass(frozen=True)
class TaskWatch:
    """Scores a student on the tuning split while it trains."""

    task: str
    reference: str
    """Key of the teacher's evaluation on that split."""
    reports: int = _REPORTS

    def score(self, student: nn.Module, teacher: Backbone, context: RunContext, store: Store) -> float:
        """The student's primary metric on the tuning split, in the metric's unit."""
        task = task_of(self.task, context)
        outputs = store.tensors(self.reference)["outputs"].float()
        options = EvaluationOptions(reference=outputs, batch_size=context.images_at_once)
        found = task.evaluate(student, teacher, "tune", options).metrics
        return float(found[task.primary_metric])


@dataclass(frozen=True)
class AgreementWatch:
    """Scores a student against the teacher on synthetic images while it trains."""

    images: str
    """Key of the images' synthesis."""
    quality: str
    """One of `DATA_FREE`."""
    reports: int = _REPORTS

    def score(self, student: nn.Module, teacher: Backbone, context: RunContext, store: Store) -> float:
        """Closeness of the student to the teacher in nats, or their agreement in percent."""
        images = probe_images(store, self.images)
        found = compared(student, teacher, images, context.images_at_once).metrics
        return closeness_of(found) if self.quality == "closeness" else found["agreement"]
