"""How far a mean over images and seeds, or a difference of two, may be from the truth.

Images and seeds are crossed: every seed is scored on the same images. The variance of a mean is then that of
the images' means over n, plus that of the seeds over S, without the part of the latter that is image noise (a
two-way random-effects analysis of variance; Satterthwaite's degrees of freedom). One seed tells nothing about
seeds, so an interval from one holds for the sampling of images alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from results.statistics import Interval, wilson_interval

if TYPE_CHECKING:
    import numpy as np


class Uncertainty(NamedTuple):
    """A mean with its standard error and that error's degrees of freedom."""

    mean: float
    error: float
    freedom: float


class _Part(NamedTuple):
    variance: float
    freedom: int


def interval_of(values: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """The interval of the mean of (seeds, images) values from 0 to 1; Wilson's for one seed of yes and no."""
    seeds, images = values.shape
    if seeds == 1 and values.dtype == bool:
        return wilson_interval(float(values.mean()), images, confidence=confidence)
    found = uncertainty(values)
    half = quantile(0.5 + confidence / 2, found.freedom) * found.error
    return Interval(max(0.0, found.mean - half), min(1.0, found.mean + half))


def uncertainty(values: np.ndarray, other: np.ndarray | None = None) -> Uncertainty:
    """Of the mean of (seeds, images) values, or of it minus that of others on the same images.

    Seeds of the two are independent, images are paired. Raises ValueError when the images differ in number.
    """
    if other is not None and values.shape[1] != other.shape[1]:
        raise ValueError(f"values of the same images are needed, not {values.shape} and {other.shape}")
    sides = [values] if other is None else [values, other]
    by_image = values.mean(axis=0) - (0 if other is None else other.mean(axis=0))
    images = len(by_image)
    parts = [_Part(float(by_image.var(ddof=1)) / images if images > 1 else 0.0, max(1, images - 1))]
    parts += [_seed_part(side) for side in sides if len(side) > 1]
    return Uncertainty(float(by_image.mean()), math.sqrt(sum(p.variance for p in parts)), _freedom(parts))


def _seed_part(values: np.ndarray) -> _Part:
    """What the seeds add to the variance of the mean; 0 where they differ by no more than images explain."""
    seeds, images = values.shape
    if images < 2:
        return _Part(float(values.mean(axis=1).var(ddof=1)) / seeds, seeds - 1)
    between_seeds = images * float(values.mean(axis=1).var(ddof=1))
    between_images = seeds * float(values.mean(axis=0).var(ddof=1))
    total = float(values.var()) * seeds * images
    rest = total - between_seeds * (seeds - 1) - between_images * (images - 1)
    noise = max(0.0, rest) / ((seeds - 1) * (images - 1))
    return _Part(max(0.0, between_seeds - noise) / (seeds * images), seeds - 1)


def _freedom(parts: Iterable[_Part]) -> float:
    """Satterthwaite's degrees of freedom of a sum of variances."""
    parts = list(parts)
    total = sum(part.variance for part in parts)
    if not total:
        return float(parts[0].freedom)
    return total**2 / sum(part.variance**2 / part.freedom for part in parts)


def quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))
