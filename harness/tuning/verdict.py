"""Whether the settings that a search chose are better than the defaults: measured, and said in a sentence.

The final comparison is on the report split, with seeds that no try was scored with. It decides what is
recommended, never which settings a row of a leaderboard shows: those are the search's, whatever came of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.suites.suite import RECOMMENDED, RECOMMENDED_DEFAULTS, RECOMMENDED_FOUND, VERDICT
from results.figures import p_value
from results.grouping import Row, gathered
from results.ranking import Comparison, compared
from results.record import Record
from results.statistics import SIGNIFICANT_BELOW, holm

Outcome = Literal["better", "worse", "not told apart", "the defaults themselves", "not measured"]
_SAID: Mapping[Outcome, str] = {
    "better": "better than the defaults",
    "worse": "worse than the defaults",
    "not told apart": "not to be told apart from the defaults",
    "the defaults themselves": "nothing better than the defaults was found",
    "not measured": "not compared with the defaults, since a trial has no result",
}


@dataclass(frozen=True)
class Verdict:
    """What the final comparison says of one method's settings."""

    outcome: Outcome
    seeds: tuple[int, ...] = ()
    comparison: Comparison | None = None
    """Chosen settings minus defaults; None where they are the same or not measured."""
    p_value: float = 1.0
    """Corrected for the number of methods searched together (Holm)."""

    @property
    def recommended(self) -> str:
        """The settings that were found where they were measured to be better, else the defaults."""
        return RECOMMENDED_FOUND if self.outcome == "better" else RECOMMENDED_DEFAULTS

    @property
    def sentence(self) -> str:
        """Outcome, difference, interval, p and what is recommended."""
        parts = [_SAID[self.outcome]]
        if self.comparison is not None:
            (low, high), metric = self.comparison.interval, self.comparison.metric
            parts.append(
                f": {self.comparison.difference:+.2f} points of {metric} (95 % interval {low:+.2f} to "
                f"{high:+.2f}, p {_equal(p_value(self.p_value))}; report split, seeds "
                f"{', '.join(map(str, self.seeds))})"
            )
        return f"{''.join(parts)}; recommended: {self.recommended}"

    @property
    def facts(self) -> dict[str, Any]:
        """What best.yaml says of it; `harness run --set-file` repeats it where it recommends the defaults."""
        return {VERDICT: self.sentence, RECOMMENDED: self.recommended}

    @property
    def metrics(self) -> dict[str, float]:
        """The figures, as MLflow keeps them."""
        if self.comparison is None:
            return {}
        low, high = self.comparison.interval
        return {
            "verdict/difference": self.comparison.difference,
            "verdict/low": low,
            "verdict/high": high,
            "verdict/p_value": self.p_value,
        }


def verdicts(
    records: Iterable[Record], found: Mapping[str, bool], seeds: Sequence[int]
) -> dict[str, Verdict]:
    """The verdict on each searched method; `found` says whether its settings differ from the defaults."""
    rows = gathered(records)
    tests = {
        method: comparison
        for method, differs in found.items()
        if differs and (comparison := _of_method(rows, method)) is not None
    }
    corrected = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    return {
        method: _verdict(differs, tests.get(method), corrected.get(method, 1.0), tuple(seeds))
        for method, differs in found.items()
    }


def _of_method(rows: Sequence[Row], method: str) -> Comparison | None:
    """The method's tuned row against its untuned one; None unless both have a result for the same seeds."""
    own = [row for row in rows if row.first.method == method and row.status == "ok"]
    tuned = next((row for row in own if row.first.tuning), None)
    default = next((row for row in own if not row.first.tuning), None)
    return compared(tuned, default) if tuned and default else None


def _verdict(differs: bool, test: Comparison | None, p: float, seeds: tuple[int, ...]) -> Verdict:
    if not differs:
        return Verdict("the defaults themselves", seeds)
    if test is None:
        return Verdict("not measured", seeds)
    if p >= SIGNIFICANT_BELOW:
        return Verdict("not told apart", seeds, test, p)
    return Verdict("better" if test.difference > 0 else "worse", seeds, test, p)


def _equal(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"
