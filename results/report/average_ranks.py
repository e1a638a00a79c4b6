"""Average ranks over backbones or data sets, and the difference of two that is more than chance.

Within each block (a backbone and a task) the rows are ranked by their means, equal ones sharing the mean of
their ranks. Two average ranks differ where they are further apart than Nemenyi's critical difference
q sqrt(k (k + 1) / 6 N), for k methods and N blocks (Demsar 2006, section 3.2.2). A method without a result in
some block has no average rank and is named: nothing is filled in for it.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from results.grouping import Row

FEWEST_BLOCKS = 3


@dataclass(frozen=True)
class AverageRanks:
    """The average ranks of one family of rows, or why there are none."""

    family: str
    """Track, budget, bits, and the engine in the controlled track."""
    blocks: tuple[str, ...]
    """Backbone and task of each block."""
    ranks: Mapping[str, float]
    """Name of the row -> average rank, best first; empty where there are none."""
    critical_difference: float
    left_out: tuple[str, ...]
    """Rows without a result in some block."""
    why_not: str = ""


def name_of(row: Row) -> str:
    """`maskaq + lsq_qat (base)`."""
    one = row.first
    named = one.method if one.engine == "none" else f"{one.method} + {one.engine}"
    return f"{named} ({row.variant})" if row.variant else named


def average_ranks(rows: Iterable[Row]) -> list[AverageRanks]:
    """One entry per family with at least two rows."""
    families: dict[str, dict[str, dict[str, float | None]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if not row.is_reference:
            one, score = row.first, row.score()
            engine = (f"engine {one.engine}",) if one.track == "controlled" else ()
            family = ", ".join((f"{one.track} track", f"budget {one.budget}", one.bits, *engine))
            families[family][f"{one.backbone} on {one.task}"][name_of(row)] = score.mean if score else None
    return [
        _average(family, blocks)
        for family, blocks in families.items()
        if len({name for scores in blocks.values() for name in scores}) > 1
    ]


def _average(family: str, blocks: Mapping[str, Mapping[str, float | None]]) -> AverageRanks:
    names = list(dict.fromkeys(name for scores in blocks.values() for name in scores))
    whole = [name for name in names if all(scores.get(name) is not None for scores in blocks.values())]
    left_out = tuple(name for name in names if name not in whole)

    def none(why: str) -> AverageRanks:
        return AverageRanks(family, tuple(blocks), {}, math.nan, left_out, why)

    if len(blocks) < FEWEST_BLOCKS:
        return none(
            f"an average rank needs {FEWEST_BLOCKS} backbones or data sets, "
            f"and there are no more than {len(blocks)}"
        )
    if len(whole) < 2:
        return none("fewer than two rows have a result everywhere")
    scores = [[float(found[name] or 0.0) for name in whole] for found in blocks.values()]
    ranked = [_ranks(values) for values in scores]
    means = {name: sum(ranks[i] for ranks in ranked) / len(ranked) for i, name in enumerate(whole)}
    best_first = dict(sorted(means.items(), key=lambda item: item[1]))
    difference = critical_difference(len(whole), len(blocks))
    return AverageRanks(family, tuple(blocks), best_first, difference, left_out)


def _ranks(values: list[float]) -> list[float]:
    """1 for the highest; equal values share the mean of their ranks."""
    return [sum(other > value for other in values) + (1 + values.count(value)) / 2 for value in values]


def critical_difference(methods: int, blocks: int) -> float:
    """Nemenyi's, at 0.05."""
    return _studentized_range(methods) / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * blocks))


@functools.cache
def _studentized_range(methods: int) -> float:
    """The 0.95 quantile of the range of so many standard normal numbers.

    P(range <= q) is k times the integral of phi(z) (Phi(z + q) - Phi(z))^(k - 1) over the smallest, z.
    """
    import numpy as np
    from scipy.special import ndtr

    z = np.linspace(-9, 9, 3601)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    low, high = 0.0, 20.0
    while high - low > 1e-9:
        q = (low + high) / 2
        share = methods * float((density * (ndtr(z + q) - ndtr(z)) ** (methods - 1)).sum())
        low, high = (q, high) if share < 0.95 else (low, q)
    return low
