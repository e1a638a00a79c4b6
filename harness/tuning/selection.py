"""Which of the best tries is chosen: the few best are scored again on further seeds, and the worst drop out.

The best of many tries is partly luck with its seed. Successive rejects (Audibert, Bubeck and Munos 2010,
"Best arm identification in multi-armed bandits", figure 2) spend a part of the budget on the finalists:
phase by phase all that are left are scored on further seeds, the same for each, and the one with the lowest
mean drops out. The values of the search itself no longer count: they are what made a try a finalist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHARE = 0.3
"""Of a search's budget, what scores finalists again."""
LEAST = 3
"""Scorings below which no finalist can be told from another."""
_MOST_FINALISTS = 5

Score = Callable[[Sequence[int], int], Mapping[int, float]]
"""Gives the values of the tries with these numbers in the scoring of that index, the same seeds for each."""


@dataclass(frozen=True)
class Selection:
    """How the finalists of a search fared on further seeds."""

    chosen: int
    """Number of the try with the highest mean."""
    searched: float
    """Its value while searching."""
    again: Mapping[int, tuple[float, ...]]
    """Number of each finalist -> a value per further scoring, fewer of those that dropped out early."""

    @property
    def scorings(self) -> int:
        """How many scorings the finalists took together."""
        return sum(map(len, self.again.values()))

    @property
    def mean(self) -> float:
        """The chosen try's mean on further seeds."""
        return math.fsum(self.again[self.chosen]) / len(self.again[self.chosen])

    @property
    def optimism(self) -> float:
        """By how much the search flattered the chosen try: its value while searching minus its mean after."""
        return self.searched - self.mean

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as the study keeps it; null for what failed."""
        again = {
            str(number): [value if math.isfinite(value) else None for value in values]
            for number, values in self.again.items()
        }
        return {"chosen": self.chosen, "searched": self.searched, "again": again}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Selection:
        """What `to_json` gave."""
        again = {
            int(number): tuple(-math.inf if value is None else value for value in values)
            for number, values in kept["again"].items()
        }
        return cls(kept["chosen"], kept["searched"], again)


def kept_back(budget: int) -> int:
    """Scorings of a budget of so many that are kept for the finalists; 0 where they would tell nothing."""
    scorings = int(SHARE * budget)
    return scorings if scorings >= LEAST else 0


def count_of_finalists(scorings: int) -> int:
    """How many tries so many scorings can tell apart; 0 if none."""
    return min(_MOST_FINALISTS, max(2, scorings // 2)) if scorings >= LEAST else 0


def phases(finalists: int, scorings: int) -> list[int]:
    """How often each finalist that is left has been scored at the end of each phase, when one drops out.

    Of K finalists and n scorings in all, phase k ends at ceil((n - K) / (logbar(K) (K + 1 - k))), with
    logbar(K) = 1/2 + 1/2 + 1/3 + ... + 1/K; together that is never more than n.
    """
    spread = 0.5 + math.fsum(1 / i for i in range(2, finalists + 1))
    return [
        math.ceil((scorings - finalists) / (spread * (finalists + 1 - phase)))
        for phase in range(1, finalists)
    ]


def successive_rejects(values: Mapping[int, float], scorings: int, score: Score) -> Selection:
    """Choose among finalists, number -> value while searching, within so many scorings.

    Of equal means the finalist that comes first in `values` counts. A value that is not finite drops a
    finalist out before any other.
    """
    left = list(values)
    again: dict[int, tuple[float, ...]] = dict.fromkeys(left, ())
    done = 0
    for upto in phases(len(left), scorings):
        for index in range(done, upto):
            scored = score(left, index)
            again |= {number: (*again[number], scored[number]) for number in left}
        done = max(done, upto)
        # The later of equals drops out: `min` takes the first, so it looks from the end.
        left.remove(min(reversed(left), key=lambda number: _mean(again[number])))
    (chosen,) = left
    return Selection(chosen, values[chosen], again)


def _mean(values: Sequence[float]) -> float:
    if not all(map(math.isfinite, values)):
        return -math.inf
    return math.fsum(values) / len(values)
