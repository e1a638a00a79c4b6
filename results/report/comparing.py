"""Two rows side by side: what differs in them, where accuracy differs, and which images change sides."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from results.figures import duration, fixed, p_value, setting
from results.grouping import Row
from results.leaderboard import cost_of, seconds_from_scratch
from results.metrics import metric_of
from results.ranking import Comparison, compared
from results.record import Record
from results.report.average_ranks import name_of
from results.report.flips import right_of
from results.statistics import SIGNIFICANT_BELOW

_SHOWN = 10
"""Images that are named of those that only one of the two has right."""


@dataclass(frozen=True)
class Pair:
    """Two rows on one backbone, bit-width and task."""

    title: str
    first: Row
    second: Row

    def differences(self) -> dict[str, tuple[str | None, str | None]]:
        """Name of a setting, a fact of the protocol, the weights or the environment -> both values.

        None where one of the two knows no such thing.
        """
        one, other = _facts(self.first.first), _facts(self.second.first)
        names = dict.fromkeys((*one, *other))
        return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}

    @functools.cached_property
    def comparison(self) -> Comparison | None:
        """The paired test; None where the images are not the same, or what was right was not kept."""
        return compared(self.first, self.second)

    def only_one_right(self) -> tuple[list[int], list[int]] | None:
        """Images that only the first, and only the second has right, at the first seed of each."""
        one, other = self.first.first, self.second.first
        if self.comparison is None or one.metric not in one.outcomes or other.metric not in other.outcomes:
            return None
        right, also = right_of(one), right_of(other)
        return (right & ~also).nonzero()[0].tolist(), (also & ~right).nonzero()[0].tolist()


def pairs_of_methods(rows: Sequence[Row], first: str, second: str) -> list[Pair]:
    """The rows of two names, `maskaq` or `maskaq+lsq_qat`, paired by all that is not the method."""
    return list(_paired(_named(rows, first), _named(rows, second), with_method=False))


def pairs_of_stores(first: Sequence[Row], second: Sequence[Row]) -> list[Pair]:
    """The rows that two stores both have."""
    return list(_paired(first, second, with_method=True))


def names_in(rows: Iterable[Row]) -> list[str]:
    """What `pairs_of_methods` may be asked for, each once."""
    return list(dict.fromkeys(_name(row.first) for row in rows))


def _named(rows: Sequence[Row], name: str) -> list[Row]:
    wanted = name.replace(" ", "")
    return [row for row in rows if wanted in (row.first.method, _name(row.first))]


def _name(one: Record) -> str:
    return one.method if one.engine == "none" else f"{one.method}+{one.engine}"


def _paired(first: Sequence[Row], second: Sequence[Row], *, with_method: bool) -> Iterator[Pair]:
    """Each row of the first with the rows of the second on the same place.

    Of two with several engines those with one engine are paired.
    """
    several = len({row.first.engine for row in first}) > 1 or len({row.first.engine for row in second}) > 1

    def place(row: Row) -> tuple[str, ...]:
        one = row.first
        shared = (one.backbone, one.bits, one.task, one.track, one.budget)
        if with_method:
            return (*shared, one.method, one.engine, row.variant)
        return (*shared, one.engine) if several else shared

    for row in first:
        for other in second:
            if place(row) == place(other) and row is not other:
                one = row.first
                yield Pair(f"{one.backbone} {one.bits}, {one.task}, budget {one.budget}", row, other)


def _facts(one: Record) -> dict[str, str]:
    """What may explain a difference, flat."""
    parts: dict[str, Any] = {
        "method": one.method,
        "engine": one.engine,
        "weights": one.weights_sha256[:12],
        "samples": one.samples_digest[:12],
        "settings": one.settings,
        "protocol": one.protocol,
        "environment": one.environment,
        "tuning": one.tuning,
    }
    return dict(_flat(parts, ""))


def _flat(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        full = f"{path}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{full}.")
        else:
            yield full, setting(value)


def text_of(pairs: Sequence[Pair]) -> str:
    """What a person reads of the pairs, one paragraph each; A is the first and B the second."""
    return "\n\n".join("\n".join(_lines(pair)) for pair in pairs)


def _lines(pair: Pair) -> Iterator[str]:
    one, other = pair.first, pair.second
    yield f"{pair.title}: A {name_of(one)}, B {name_of(other)}"
    yield f"  {_accuracy(pair)}"
    flips = pair.only_one_right()
    if flips is not None:
        seeds = f"seed {one.first.seed} of A, {other.first.seed} of B"
        only = [f"{len(images)} images{_listed(images)}" for images in flips]
        yield f"  right in A alone: {only[0]}; in B alone: {only[1]} ({seeds})"
    costs = [duration(seconds_from_scratch(cost_of(row))) for row in (one, other)]
    yield f"  from scratch: A {costs[0]}, B {costs[1]}"
    differences = pair.differences()
    if not differences:
        yield "  settings, protocol and environment are the same"
    for name, (mine, theirs) in differences.items():
        if mine is not None and theirs is not None:
            yield f"  {name}: A {mine}, B {theirs}"
    for side, place in (("A", 0), ("B", 1)):
        alone = [f"{name} {both[place]}" for name, both in differences.items() if both[1 - place] is None]
        if alone:
            yield f"  only {side} has: {', '.join(alone)}"


def _accuracy(pair: Pair) -> str:
    one, other = pair.first, pair.second
    sides = (("A", one), ("B", other))
    missing = [f"{side} has no result ({row.reason})" for side, row in sides if not row.ok]
    if missing:
        return "; ".join(missing)
    metric = metric_of(one.first.metric).spoken
    means = [score.mean if (score := row.score()) else None for row in (one, other)]
    said = f"{metric}: A {fixed(means[0], 2)}, B {fixed(means[1], 2)}"
    found = pair.comparison
    if found is None:
        return f"{said}; not tested: the images are not the same, or what was right was not kept"
    low, high = found.interval
    significant = "significant" if found.p_value < SIGNIFICANT_BELOW else "not significant"
    return (
        f"{said}; A minus B {found.difference:+.2f} points, 95 % {low:+.2f} to {high:+.2f}, "
        f"p {p_value(found.p_value)}: {significant}"
    )


def _listed(images: Sequence[int]) -> str:
    if not images:
        return ""
    more = ", ..." if len(images) > _SHOWN else ""
    return f" ({', '.join(map(str, images[:_SHOWN]))}{more})"
