"""One analysis: every set of images and its student measured alike, with what makes the figures uncertain."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.analysis import metrics
from harness.analysis.image_sets import ImageSets
from harness.analysis.measuring import TOP, ImageFacts, StudentFacts, measure_images, measure_student
from harness.stages.precision import EXACT, computing
from methods.base import GradientShares

REAL = "real_data"
"""The set that all others are compared with."""
_ENOUGH_IMAGES = 64
"""With fewer, the intervals of claim 2 are wider than what the claim is about."""


@dataclass(frozen=True)
class Analysis:
    """Everything that was measured."""

    settings: Mapping[str, Any]
    """backbone, bits, engine, budget, seed, and `measured_images`: how many of each set were looked at."""
    images: Mapping[str, ImageFacts]
    """Set -> what the teacher says of it; `real_data` first."""
    own: Mapping[str, StudentFacts]
    """Set -> what its student makes of the set itself."""
    real: Mapping[str, StudentFacts]
    """Set -> what its student makes of real images."""
    gradient_shares: Mapping[str, GradientShares] = field(default_factory=dict)
    """Set -> what each loss term of its synthesis moved; sets of one term or none are left out."""
    warnings: tuple[str, ...] = ()
    """What makes the figures uncertain."""
    failures: tuple[str, ...] = ()

    @property
    def evenly(self) -> float:
        """Attention in the top patches when every patch gets as much."""
        return metrics.evenly(TOP, len(self.images[REAL].curve))

    def range_ratios(self, name: str) -> dict[str, float]:
        """`metrics.range_ratios` of a set against real images."""
        return metrics.range_ratios(self.images[name].ranges, self.images[REAL].ranges)


def analyse(image_sets: ImageSets, most_images: int) -> Analysis:
    """Measure every set on equally many images: at most `most_images`, at most what the smallest set has."""
    with computing(EXACT, str(image_sets.teacher.device)):
        return _analysed(image_sets, most_images)


def _analysed(image_sets: ImageSets, most_images: int) -> Analysis:
    smallest = min(image_sets.sets, key=lambda name: len(image_sets.sets[name].images))
    count = min(most_images, len(image_sets.sets[smallest].images))
    teacher, batch_size = image_sets.teacher, image_sets.batch_size
    real = image_sets.sets[REAL].images[:count]
    images, own, on_real = {}, {}, {}
    for name, one in image_sets.sets.items():
        first = one.images[:count]
        images[name] = measure_images(teacher, first, batch_size)
        own[name] = measure_student(teacher, one.student, first, batch_size)
        is_real = name == REAL
        on_real[name] = own[name] if is_real else measure_student(teacher, one.student, real, batch_size)
    moved = {name: one.gradient_shares for name, one in image_sets.sets.items()}
    return Analysis(
        {**image_sets.settings, "measured_images": count},
        images,
        own,
        on_real,
        {name: shares for name, shares in moved.items() if shares.iterations},
        _warnings(count, smallest if count < most_images else ""),
        image_sets.failures,
    )


def _warnings(count: int, smallest: str) -> tuple[str, ...]:
    if count >= _ENOUGH_IMAGES:
        return ()
    cause = f": {smallest} has no more (--set {smallest}.images=N)" if smallest else " (--images)"
    return (
        f"measured on {count} images of each set, fewer than {_ENOUGH_IMAGES}{cause}; what patches carry "
        "cannot be told from so few",
    )


def image_row(analysis: Analysis, name: str) -> dict[str, Any]:
    """What the teacher says of a set, as plain values."""
    import torch

    facts = analysis.images[name]
    curve = torch.tensor(facts.curve)
    ratios = analysis.range_ratios(name)
    point, worst = metrics.worst_ratio(ratios)
    return {
        "images": name,
        "mass_of_top_tenth": metrics.mass_of(curve, TOP),
        "mass_of_top_tenth_by_head": statistics.mean(facts.layers),
        "mass_of_top_tenth_last_layer": facts.layers[-1],
        "patches_for_half_the_mass": metrics.patches_for(curve, 0.5),
        "range_ratio_median": statistics.median(ratios.values()),
        "range_ratio_worst": worst,
        "range_ratio_worst_point": point,
    }
