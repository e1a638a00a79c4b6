"""Ranks within groups of comparable rows, and how sure a row is worse than the best of its group.

Decides what may be compared; knows nothing about tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from results.grouping import Row
from results.record import Record
from results.statistics import (
    Interval,
    bootstrap_p_value,
    holm,
    mcnemar,
    paired_bootstrap,
    unpack_outcomes,
    unpack_scores,
)

if TYPE_CHECKING:
    import numpy as np

_BOOTSTRAP_SEED = 0


class Standing(NamedTuple):
    """A row's place in its group."""

    rank: int
    """1 is best; equal means share a rank."""
    p_value: float | None
    """p-value of the paired test against the group's best row, Holm-corrected; None for the best itself."""
    test: str
    """`mcnemar` (right and wrong, one seed each), `bootstrap` (several seeds, or scores), or empty."""


class Comparison(NamedTuple):
    """How one row did beside another on the same images."""

    metric: str
    difference: float
    """Mean over images and seeds of the first minus the second, in points of 100."""
    interval: Interval
    """95 %, in the same unit, from a bootstrap over images and, where there are several, seeds."""
    p_value: float
    """Two-sided, of this test alone."""


def standings(rows: Sequence[Row]) -> dict[int, Standing]:
    """Index into `rows` -> standing, for every row that is ranked.

    Reference rows and rows without a result are not. A group shares backbone, bits, task, metric, budget,
    track, weights and samples. In the published track whole methods compete, whatever their protocol; in the
    controlled track only rows of one engine whose protocols agree.
    """
    places: dict[int, Standing] = {}
    for members in ranked_groups(rows):
        places |= _ranked(rows, members)
    return places


def ranked_groups(rows: Sequence[Row]) -> list[list[int]]:
    """Indices into `rows` of those that are ranked together; see `standings`."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if not row.is_reference and row.score() is not None:
            groups[_group(row)].append(index)
    return list(groups.values())


def _group(row: Row) -> tuple[str, ...]:
    one = row.first
    shared = (one.backbone, one.bits, one.task, one.metric, one.budget, one.track)
    measured = (one.weights_sha256, one.samples_digest)
    quantizer = (one.engine, one.fingerprint) if one.track == "controlled" else ()
    return (*shared, *measured, *quantizer)


def _ranked(rows: Sequence[Row], members: list[int]) -> dict[int, Standing]:
    means = {index: mean_of(rows[index]) for index in members}
    best = max(members, key=means.__getitem__)
    tests = tests_against(rows, best, [index for index in members if index != best])
    return {
        index: Standing(
            rank=1 + sum(other > means[index] for other in means.values()),
            p_value=tests[index][1] if index in tests else None,
            test=tests[index][0] if index in tests else "",
        )
        for index in members
    }


def tests_against(rows: Sequence[Row], best: int, others: Sequence[int]) -> dict[int, tuple[str, float]]:
    """Index of each of the others that can be tested -> test against the best, and p-value after Holm."""
    tests = {index: test for index in others if (test := paired_test(rows[index], rows[best])) is not None}
    corrected = holm([p_value for _, p_value in tests.values()])
    return {index: (tests[index][0], p_value) for index, p_value in zip(tests, corrected, strict=True)}


def mean_of(row: Row) -> float:
    """The mean of a ranked row, which has one."""
    score = row.score()
    assert score is not None
    return score.mean


def paired_test(row: Row, other: Row) -> tuple[str, float] | None:
    """Name and p-value of the paired test; None where outcomes were not kept or samples are unknown."""
    import numpy as np

    first, second = outcomes_of(row), outcomes_of(other)
    if first is None or second is None or not row.first.samples_digest:
        return None
    if len(first) == len(second) == 1 and first.dtype == second.dtype == bool:
        return "mcnemar", mcnemar(first[0], second[0]).p_value
    generator = np.random.default_rng(_BOOTSTRAP_SEED)
    return "bootstrap", bootstrap_p_value(first, second, generator=generator)


def compared(row: Row, other: Row) -> Comparison | None:
    """The paired comparison of two rows; None where outcomes were not kept, or are those of other images."""
    import numpy as np

    if row.first.samples_digest != other.first.samples_digest:
        return None
    first, second, test = outcomes_of(row), outcomes_of(other), paired_test(row, other)
    if first is None or second is None or test is None:
        return None
    drawn = paired_bootstrap(first, second, generator=np.random.default_rng(_BOOTSTRAP_SEED))
    low, high = drawn.interval
    return Comparison(row.first.metric, 100 * drawn.difference, Interval(100 * low, 100 * high), test[1])


def outcomes_of(row: Row) -> np.ndarray | None:
    """(seeds, images) of the ranking metric: boolean, or scores from 0 to 1; None where none were kept."""
    import numpy as np

    seeds = [_outcome(record) for record in row.ok]
    known = [outcome for outcome in seeds if outcome is not None]
    return np.stack(known) if known and len(known) == len(seeds) else None


def _outcome(record: Record) -> np.ndarray | None:
    if packed := record.outcomes.get(record.metric):
        return unpack_outcomes(packed, record.images)
    if packed := record.scores.get(record.metric):
        return unpack_scores(packed, record.images)
    return None
