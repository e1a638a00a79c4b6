"""Small charts as SVG text: lines, points, bars, and critical differences.

Drawn 420 units wide, so that their 12-unit text is readable on a phone too. Colours come from the page's
style sheet (classes c0 to c6), markers and dashes tell series apart without colour. All text is escaped.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH = 420
_LEFT, _RIGHT, _TOP = 46, 12, 12
_PLOT = 220
"""Height of the plotting area."""
_LINE = 17
"""Height of a line of text."""
_COLOURS = 7


@dataclass(frozen=True)
class Series:
    """Points of one name, in order, each with an interval of y where given.

    What has one colour, or one shape of marker, belongs together in every chart of the page.
    """

    name: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float] | None] = ()
    colour: int = 0
    shape: int = 0


@dataclass(frozen=True)
class Axis:
    """Title and ticks of an axis; without ticks round numbers are chosen."""

    title: str
    ticks: Sequence[tuple[float, str]] = ()
    logarithmic: bool = False


class _Scale:
    """From values to units along one direction."""

    def __init__(self, values: Sequence[float], axis: Axis, start: float, end: float) -> None:
        self.axis, self.start, self.end = axis, start, end
        known = [*values, *(place for place, _ in axis.ticks)]
        if axis.logarithmic:
            known = [math.log10(max(value, 1e-9)) for value in known]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        margin = (high - low) * 0.06 or 0.5
        self.low, self.high = low - margin, high + margin

    def __call__(self, value: float) -> float:
        value = math.log10(max(value, 1e-9)) if self.axis.logarithmic else value
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Places as values, with their texts."""
        if self.axis.ticks:
            return list(self.axis.ticks)
        if self.axis.logarithmic:
            whole = range(math.ceil(self.low), math.floor(self.high) + 1)
            factors = (1,) if len(whole) > 2 else (1, 2, 5)
            spread = range(math.floor(self.low), math.ceil(self.high) + 1)
            places = [factor * 10.0**power for power in spread for factor in factors]
            return [(p, f"{p:g}") for p in places if self.low <= math.log10(p) <= self.high]
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        places = [index * step for index in range(first, math.floor(self.high / step) + 1)]
        return [(place, f"{place:.6g}") for place in places]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def chart(
    title: str, series: Sequence[Series], x: Axis, y: Axis, *, lines: bool = True, frontier: bool = False
) -> str:
    """Lines or points with a legend below; `frontier` joins those that no other beats in both directions.

    A lower x and a higher y are better there.
    """
    xs = [point[0] for one in series for point in one.points]
    ys = [point[1] for one in series for point in one.points]
    ys += [edge for one in series for interval in one.intervals if interval for edge in interval]
    across = _Scale(xs, x, _LEFT, WIDTH - _RIGHT)
    up = _Scale(ys, y, _TOP + _PLOT, _TOP)
    legend = _TOP + _PLOT + 2 * _LINE + 14
    height = legend + _LINE * len(series)
    parts = _frame(across, up)
    if frontier:
        parts.append(_frontier(series, across, up))
    for index, one in enumerate(series):
        parts.append(_drawn(one, across, up, lines))
        at = legend + _LINE * index
        parts.append(f'<g class="c{one.colour % _COLOURS}">{_marker(one.shape, _LEFT - 30, at)}</g>')
        parts.append(f'<text x="{_LEFT - 18}" y="{at + 4}">{html.escape(_cut(one.name, 58))}</text>')
    return _svg(title, height, parts)


def bars(title: str, values: Mapping[str, float], unit: str) -> str:
    """One horizontal bar for each name, its value at its end; negative ones go to the left."""
    low, high = min(0.0, *values.values()), max(0.0, *values.values())
    label, room = 150, WIDTH - 150 - 60
    span = (high - low) or 1.0
    zero = label + room * -low / span
    parts = []
    for index, (name, value) in enumerate(values.items()):
        top = _TOP + _LINE * index
        end = label + room * (value - low) / span
        parts.append(
            f'<text x="{label - 6}" y="{top + 12}" text-anchor="end">{html.escape(_cut(name, 24))}</text>'
        )
        parts.append(
            f'<rect class="c{0 if value >= 0 else 1} bar" x="{min(zero, end):.1f}" y="{top + 2}" '
            f'width="{abs(end - zero):.1f}" height="{_LINE - 4}"/>'
        )
        parts.append(
            f'<text x="{max(zero, end) + 4:.1f}" y="{top + 12}">{value:.1f}{html.escape(unit)}</text>'
        )
    return _svg(title, _TOP + _LINE * len(values) + 8, parts)


def critical_difference(title: str, ranks: Mapping[str, float], difference: float) -> str:
    """Average ranks on a line, best to the left; rows that are not told apart are joined by a bar."""
    names, places = list(ranks), list(ranks.values())
    scale = _Scale([1, len(names)], Axis("", [(i, str(i)) for i in range(1, len(names) + 1)]), 20, WIDTH - 20)
    runs = _runs(places, difference)
    rows = _TOP + 26 + 10 * len(runs)
    parts = [f'<line class="axis" x1="20" x2="{WIDTH - 20}" y1="{_TOP + 20}" y2="{_TOP + 20}"/>']
    for place, text in scale.ticks():
        at = scale(place)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP + 16}" y2="{_TOP + 20}"/>')
        parts.append(f'<text x="{at:.1f}" y="{_TOP + 12}" text-anchor="middle">{text}</text>')
    for row, (first, last) in enumerate(runs):
        y = _TOP + 30 + 10 * row
        ends = f'x1="{scale(places[first]) - 4:.1f}" x2="{scale(places[last]) + 4:.1f}"'
        parts.append(f'<line class="tie" {ends} y1="{y}" y2="{y}"/>')
    for index, (name, place) in enumerate(ranks.items()):
        y, at = rows + _LINE * index + 14, scale(place)
        right = at > WIDTH / 2
        edge, anchor = (at - 6, "end") if right else (at + 6, "start")
        parts.append(
            f'<g class="c{index % _COLOURS}">'
            f'<line class="line" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP + 20}" y2="{y - 4}"/></g>'
            f'<text x="{edge:.1f}" y="{y}" text-anchor="{anchor}">'
            f"{place:.2f} {html.escape(_cut(name, 40))}</text>"
        )
    height = rows + _LINE * len(names) + 12
    return _svg(f"{title}; critical difference {difference:.2f}", height, parts)


def _runs(places: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """The longest stretches of sorted places within the difference, as first and last index."""
    runs: list[tuple[int, int]] = []
    for first in range(len(places)):
        last = max(i for i in range(len(places)) if places[i] - places[first] <= difference)
        if last > first and not any(last <= end for _, end in runs):
            runs.append((first, last))
    return runs


def _frame(across: _Scale, up: _Scale) -> list[str]:
    bottom = _TOP + _PLOT
    parts = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{WIDTH - _RIGHT}"/>']
    for place, text in across.ticks():
        at = across(place)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{html.escape(text)}</text>')
    for place, text in up.ticks():
        at = up(place)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{html.escape(text)}</text>')
    parts.append(
        f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{bottom + 32}" text-anchor="middle">'
        f"{html.escape(across.axis.title)}</text>"
    )
    middle = _TOP + _PLOT / 2
    parts.append(
        f'<text x="11" y="{middle}" text-anchor="middle" transform="rotate(-90 11 {middle})">'
        f"{html.escape(up.axis.title)}</text>"
    )
    return parts


def _drawn(one: Series, across: _Scale, up: _Scale, lines: bool) -> str:
    spots = [(across(a), up(b)) for a, b in one.points]
    parts = [f'<g class="c{one.colour % _COLOURS}"><title>{html.escape(one.name)}</title>']
    if lines and len(spots) > 1:
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in spots)
        dash = ("", "6 3", "2 3", "8 3 2 3")[one.colour // _COLOURS % 4]
        parts.append(f'<path class="line" stroke-dasharray="{dash}" d="M{path}"/>')
    for (a, _), interval in zip(spots, one.intervals, strict=False):
        if interval:
            parts.append(
                f'<line class="line thin" x1="{a:.1f}" x2="{a:.1f}" '
                f'y1="{up(interval[0]):.1f}" y2="{up(interval[1]):.1f}"/>'
            )
    few = spots if len(spots) <= 12 else spots[:: -(-len(spots) // 8)]
    parts += [_marker(one.shape, a, b) for a, b in few]
    return "".join([*parts, "</g>"])


def _frontier(series: Sequence[Series], across: _Scale, up: _Scale) -> str:
    points = sorted((point for one in series for point in one.points), key=lambda p: (p[0], -p[1]))
    best, kept = -math.inf, []
    for place, value in points:
        if value > best:
            best = value
            kept.append(f"{across(place):.1f} {up(value):.1f}")
    return f'<path class="frontier" d="M{"L".join(kept)}"/>' if len(kept) > 1 else ""


def _marker(shape: int, x: float, y: float) -> str:
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>',
        f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>',
        f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>',
        f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>',
        f'<path d="M{x:.1f} {y + 5:.1f}l5 -9h-10z"/>',
    )
    return shapes[shape % len(shapes)]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    said = html.escape(title)
    body = "".join(part for part in parts if part)
    return (
        f'<figure class="chart"><figcaption>{said}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{html.escape(title, quote=True)}">'
        f"{body}</svg></figure>"
    )
