"""The smallest difference that a suite could have detected, at a power of 0.8.

One seed each, right and wrong: the paired design of McNemar's test. With a share psi of images on which
exactly one of the two is right, n images detect a difference d where

    n = (z(1 - alpha/2) sqrt(psi) + z(power) sqrt(psi - d^2))^2 / d^2

(Miettinen 1968; Connor 1987, Biometrics 43:207). Several seeds, or scores: d = (z(1 - alpha/2) + z(power))
times the standard error of such a difference, taken as known. Within a group the median of psi, or of the
error, over all pairs counts, and alpha is 0.05 over the number of rows compared with the best: Holm's first
step.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from results.grouping import Row
from results.ranking import outcomes_of
from results.report.uncertainty import quantile, uncertainty
from results.statistics import SIGNIFICANT_BELOW

POWER = 0.8
_MOST_PAIRS = 45
"""Pairs that are looked at in a group: all of ten rows; of a larger group the first."""


class Detectable(NamedTuple):
    """What a group of rows could have told apart."""

    points: float
    """Smallest difference of two rows in points of 100, where these two alone are compared."""
    corrected: float
    """The same where every row of the group is compared with the best."""
    rows: int
    images: int
    seeds: int
    """Seeds of the row that has the fewest."""


def smallest_difference(
    images: int, differing: float, *, alpha: float = SIGNIFICANT_BELOW, power: float = POWER
) -> float:
    """The difference d from 0 to 1 of the formula above; `differing` is psi. Never more than psi itself."""
    from scipy.special import ndtri

    if images < 1 or not 0 <= differing <= 1:
        raise ValueError(f"a share from 0 to 1 of at least one image is needed, not {differing} of {images}")
    from_size, from_power = float(ndtri(1 - alpha / 2)), float(ndtri(power))
    # Solved for d: with u = z(1 - alpha/2) sqrt(psi), n d^2 + u^2 - 2 u d sqrt(n) = z(power)^2 (psi - d^2).
    edge = from_size * math.sqrt(differing)
    square, linear = images + from_power**2, -2 * edge * math.sqrt(images)
    constant = edge**2 - from_power**2 * differing
    root = (-linear + math.sqrt(linear**2 - 4 * square * constant)) / (2 * square)
    return min(differing, root)


def detectable(rows: Sequence[Row]) -> Detectable | None:
    """What rows that are ranked together could have told apart; None where their images were not kept."""
    found = [(row, values) for row in rows if (values := outcomes_of(row)) is not None]
    pairs = list(itertools.islice(itertools.combinations([values for _, values in found], 2), _MOST_PAIRS))
    if not pairs:
        return None
    alphas = (SIGNIFICANT_BELOW, SIGNIFICANT_BELOW / max(1, len(rows) - 1))
    images = found[0][1].shape[1]
    if all(len(first) == len(second) == 1 and first.dtype == bool for first, second in pairs):
        differing = statistics.median(float((first != second).mean()) for first, second in pairs)
        points = [smallest_difference(images, differing, alpha=alpha) for alpha in alphas]
    else:
        error = statistics.median(uncertainty(first, second).error for first, second in pairs)
        points = [(quantile(1 - alpha / 2, math.inf) + quantile(POWER, math.inf)) * error for alpha in alphas]
    seeds = min(len(values) for _, values in found)
    return Detectable(100 * points[0], 100 * points[1], len(rows), images, seeds)
