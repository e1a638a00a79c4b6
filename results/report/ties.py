"""Ranks that tie where nothing is significant.

Rows that the paired test, Holm-corrected at 0.05, does not tell from the best of their group share rank 1;
among the others the same is asked again. The test is the leaderboard's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from results.grouping import Row
from results.ranking import mean_of, ranked_groups, tests_against
from results.statistics import SIGNIFICANT_BELOW


def tied_ranks(rows: Sequence[Row], known: Sequence[float | None] = ()) -> dict[int, int]:
    """Index into `rows` -> rank, of every row that is ranked.

    `known` holds, where they were computed before, the corrected p-values against the best of the group.
    """
    places: dict[int, int] = {}
    for members in ranked_groups(rows):
        places |= _tied(rows, members, known)
    return places


def _tied(rows: Sequence[Row], members: list[int], known: Sequence[float | None]) -> dict[int, int]:
    left = sorted(members, key=lambda index: -mean_of(rows[index]))
    places: dict[int, int] = {}
    while left:
        best, *others = left
        p_values = {i: known[i] for i in others} if known and not places else _tested(rows, best, others)
        together = [best, *(i for i in others if _is_tied(p_values.get(i), rows[i], rows[best]))]
        place = len(places) + 1
        places |= dict.fromkeys(together, place)
        left = [index for index in left if index not in together]
    return places


def _tested(rows: Sequence[Row], best: int, others: Sequence[int]) -> dict[int, float | None]:
    return {index: p_value for index, (_, p_value) in tests_against(rows, best, others).items()}


def _is_tied(p_value: float | None, row: Row, best: Row) -> bool:
    """Without a test only equal means tie."""
    return mean_of(row) == mean_of(best) if p_value is None else p_value >= SIGNIFICANT_BELOW
