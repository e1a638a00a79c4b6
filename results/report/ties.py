"""Ranks that tie where nothing is significant.

Rows that the paired test, Holm-corrected at 0.05, does not tell from the best of their group share rank 1;
among the others the same is asked again. The test is the leaderboard's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from results.grouping import Row
from results.ranking import paired_test, ranked_groups
from results.statistics import holm

LEVEL = 0.05


def tied_ranks(rows: Sequence[Row], known: Sequence[float | None] = ()) -> dict[int, int]:
    """Index into `rows` -> rank, of every row that is ranked.

    `known` holds, where they were computed before, the corrected p-values against the best of the group.
    """
    places: dict[int, int] = {}
    for members in ranked_groups(rows):
        places |= _tied(rows, members, known)
    return places


def _tied(rows: Sequence[Row], members: list[int], known: Sequence[float | None]) -> dict[int, int]:
    left = sorted(members, key=lambda index: -_mean(rows[index]))
    places: dict[int, int] = {}
    while left:
        best, *others = left
        p_values = {i: known[i] for i in others} if known and not places else _tests(rows, best, others)
        together = [best, *(i for i in others if _is_tied(p_values.get(i), rows[i], rows[best]))]
        place = len(places) + 1
        places |= dict.fromkeys(together, place)
        left = [index for index in left if index not in together]
    return places


def _tests(rows: Sequence[Row], best: int, others: Sequence[int]) -> dict[int, float | None]:
    tests = {i: test[1] for i in others if (test := paired_test(rows[i], rows[best])) is not None}
    return dict(zip(tests, holm(list(tests.values())), strict=True))


def _is_tied(p_value: float | None, row: Row, best: Row) -> bool:
    """Without a test only equal means tie."""
    return _mean(row) == _mean(best) if p_value is None else p_value >= LEVEL


def _mean(row: Row) -> float:
    score = row.score()
    assert score is not None
    return score.mean
