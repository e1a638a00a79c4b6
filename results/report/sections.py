"""The sections of the page below its table: what can be told apart, curves, costs, images."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from results.figures import MISSING, duration, fixed
from results.metrics import metric_of
from results.report import flips as image_level
from results.report.average_ranks import name_of
from results.report.flips import Flips
from results.report.report import Curve, Report, ReportRow
from results.report.svg import Axis, Series, bars, chart, critical_difference

_MOST_CHARTS = 60
"""Charts of one kind in a page; the rest is named by number."""
_MOST_CLASSES = 14
_MOST_OVERLAPS = 24
"""Rows in a confusion of flips: more would not be readable."""


def statistics_section(report: Report) -> str:
    """The smallest difference per group, and average ranks."""
    lines = []
    for group, found in report.groups:
        row = report.rows[group[0]].cells
        where = ", ".join(
            str(row[name]) for name in ("task", "backbone", "bits", "track", "budget") if row[name]
        )
        where += f", {row['engine']}" if row["track"] == "controlled" else ""
        if found is None:
            lines.append((where, len(group), MISSING, MISSING, MISSING, MISSING))
        else:
            seeds = str(found.seeds)
            points = (f"{found.points:.1f}", f"{found.corrected:.1f}")
            lines.append((where, found.rows, f"{found.images:,}", seeds, *points))
    header = ("Group", "Rows", "Images", "Seeds", "Two rows alone", "All against the best")
    parts = [
        "<p>The smallest difference, in points, that each group could have detected with a power of 0.8 at "
        "a level of 0.05. A smaller one in the table above may be real; this suite could not show it.</p>",
        _folded(_table(header, lines), len(lines)),
    ]
    without: dict[str, list[str]] = defaultdict(list)
    for ranks in report.ranks:
        if ranks.why_not:
            without[ranks.why_not].append(ranks.family)
            continue
        title = f"Average rank over {len(ranks.blocks)} backbones or data sets: {ranks.family}"
        parts.append(critical_difference(title, ranks.ranks, ranks.critical_difference))
        parts.append(
            f"<p>Blocks: {html.escape(', '.join(ranks.blocks))}. Rows joined by a bar are not told apart "
            "(Nemenyi, 0.05).</p>"
        )
        if ranks.left_out:
            parts.append(
                "<p>Without an average rank, since a block has no result of them: "
                f"{html.escape(', '.join(ranks.left_out))}.</p>"
            )
    for why, families in without.items():
        named = html.escape("; ".join(families))
        parts.append(f"<p>No average ranks, since {html.escape(why)}: {named}.</p>")
    return "\n".join(parts)


def bits_section(report: Report) -> str:
    """Accuracy over bit-widths; empty where every backbone has one width alone."""
    groups: dict[tuple[str, ...], list[ReportRow]] = defaultdict(list)
    for row in _measured(report):
        cells = row.cells
        groups[cells["task"], cells["track"], cells["budget"], cells["backbone"]].append(row)
    drawn = []
    for key, rows in groups.items():
        widths = sorted({row.cells["bits"] for row in rows if row.cells["bits"] != "fp32"}, key=_widths)
        if len(widths) > 1:
            title = ", ".join((key[3], key[0], *key[1:3]))
            drawn.append((key[3], partial(_over_bits, report, title, rows, widths)))
    return _charts(drawn)


def _over_bits(report: Report, title: str, rows: Sequence[ReportRow], widths: Sequence[str]) -> str:
    lines: dict[str, list[ReportRow]] = defaultdict(list)
    for row in rows:
        if row.cells["bits"] in widths:
            lines[name_of(row.row)].append(row)
    series = []
    for name, members in lines.items():
        members.sort(key=lambda row: widths.index(row.cells["bits"]))
        places = [(float(widths.index(row.cells["bits"])), row.cells["mean"]) for row in members]
        series.append(Series(name, places, [row.interval for row in members], *_look(report, members[0])))
    ticks = [(float(place), bits) for place, bits in enumerate(widths)]
    return chart(title, series, Axis("bits", ticks), Axis(_metric(rows)))


def cost_section(report: Report) -> str:
    """Costs by stage, and accuracy against what a row costs from scratch."""
    header = ("Row", "Synthesis", "Quantization", "From scratch", "Images/s", "Peak MB", "Device")
    lines = []
    groups: dict[tuple[str, ...], list[ReportRow]] = defaultdict(list)
    for row in _measured(report):
        cells = row.cells
        speed = row.row.mean_of("cost", "images_per_second")
        lines.append(
            (
                f"{name_of(row.row)}, {cells['backbone']} {cells['bits']}",
                duration(cells["synthesis_seconds"]),
                duration(cells["quantization_seconds"]),
                duration(row.scratch_seconds),
                fixed(speed, 0),
                fixed(cells["peak_memory_mb"], 0),
                cells["cost_devices"] or MISSING,
            )
        )
        if row.scratch_seconds and not cells["reference"]:
            key = (cells["backbone"], cells["bits"], cells["task"], cells["track"], cells["budget"])
            groups[(*key, cells["cost_devices"])].append(row)
    drawn = [
        (key[0], partial(_pareto, report, ", ".join(filter(None, key)), rows))
        for key, rows in groups.items()
        if len(rows) > 1
    ]
    said = (
        "<p>Seconds from scratch: synthesis and quantization of one seed, as if nothing were shared or "
        "stored. The dotted line joins rows that no other beats in both accuracy and cost. Times of "
        "different devices are never in one plot. Warm-up is not measured apart from the work.</p>"
    )
    return said + _charts(drawn) + _folded(_table(header, lines), len(lines))


def _look(report: Report, row: ReportRow) -> tuple[int, int]:
    """Colour and shape: a method has its colour and an engine its shape in every chart."""
    methods, engines = report.values["method"], report.values["engine"]
    return methods.index(row.cells["method"]), engines.index(row.cells["engine"])


def _pareto(report: Report, title: str, rows: Sequence[ReportRow]) -> str:
    series = [
        Series(
            name_of(row.row),
            [(row.scratch_seconds or 0.0, row.cells["mean"])],
            [row.interval],
            *_look(report, row),
        )
        for row in sorted(rows, key=lambda row: row.scratch_seconds or 0.0)
    ]
    seconds = Axis("seconds from scratch", logarithmic=True)
    return chart(title, series, seconds, Axis(_metric(rows)), lines=False, frontier=True)


def gradients_section(curves: Iterable[Curve]) -> str:
    """Shares of the gradient over iterations; empty without curves."""
    curves = list(curves)
    terms = sorted({name for curve in curves for name in curve.values})
    drawn = []
    for curve in curves:
        series = [
            Series(
                name, list(zip(curve.steps, values, strict=True)), (), terms.index(name), terms.index(name)
            )
            for name, values in curve.values.items()
        ]
        axes = (Axis("iteration"), Axis("share of the gradient"))
        drawn.append(("", partial(chart, curve.title, series, *axes)))
    return _charts(drawn)


def galleries_section(report: Report) -> str:
    """Synthesized images, one row of pictures a set."""
    parts = []
    for gallery in report.extras.galleries:
        pictures = "".join(
            f'<figure><img alt="{html.escape(p.caption, quote=True)}" '
            f'src="{html.escape(p.data, quote=True)}">'
            f"<figcaption>{html.escape(p.caption)}</figcaption></figure>"
            for p in gallery.pictures
        )
        parts.append(f'<h3>{html.escape(gallery.title)}</h3><div class="gallery">{pictures}</div>')
    return "\n".join(parts)


def flips_section(report: Report, flips: Sequence[Flips]) -> str:
    """Images lost and gained, overlaps, and drops by class."""
    parts = []
    for number, one in enumerate(flips):
        title = f"{one.backbone}, {', '.join(one.bits)}: {one.images:,} images"
        names = [_short(report.rows[i]) for i in one.rows]
        header = ("Row", "Lost", "Gained", "Lost of what full precision has right")
        right = sum(image_level.right_of(one.teacher))
        lines = [
            (name, str(lost), str(gained), f"{100 * lost / max(1, right):.1f} %")
            for name, lost, gained in zip(names, one.lost, one.gained, strict=True)
        ]
        parts.append(
            f'<div data-backbone="{html.escape(one.backbone, quote=True)}"><h3>{html.escape(title)}</h3>'
        )
        parts.append(_folded(_table(header, lines), len(lines)))
        parts.append(f'<div class="flips" data-flips="{number}"></div>')
        parts.append(_overlaps(names, one))
        parts.append(_classes(report, one))
        parts.append("</div>")
    return "\n".join(parts)


def _overlaps(names: Sequence[str], one: Flips) -> str:
    """For each two rows the share of images lost by either that both lose."""
    shown = list(range(len(names)))[:_MOST_OVERLAPS]
    if len(shown) < 2:
        return ""
    header = ("", *(str(i + 1) for i in shown))
    lines = []
    for i in shown:
        cells = []
        for j in shown:
            either = one.lost[i] + one.lost[j] - one.shared[i][j]
            cells.append(MISSING if i == j or not either else f"{100 * one.shared[i][j] / either:.0f}")
        lines.append((f"{i + 1} {names[i]}", *cells))
    left = len(names) - len(shown)
    more = f"<p>{left} more rows are left out.</p>" if left else ""
    return (
        "<details><summary>Confusion of flips: of the images that either of two rows loses, the percentage "
        f"that both lose</summary>{_table(header, lines)}{more}</details>"
    )


def _classes(report: Report, one: Flips) -> str:
    """Drop by class of the best row of each engine, where the teacher's answers are known."""
    teacher = report.extras.teachers.get((one.backbone, one.teacher.samples_digest))
    if teacher is None:
        return ""
    names = report.extras.class_names.get(one.teacher.task, ())
    drawn = []
    for index, row in _best_of_engines(report, one):
        drops = image_level.drop_by_class([r.row for r in report.rows], one, index, teacher.answers)
        worst = sorted(drops, key=lambda number: -drops[number])[:_MOST_CLASSES]
        if worst:
            shown = {names[c] if c < len(names) else f"class {c}": drops[c] for c in worst}
            title = f"{_short(row)}: points lost by class, the worst first"
            drawn.append(("", partial(bars, title, shown, "")))
    if not drawn:
        return (
            "<p>No drop by class: no class has five images here, and a figure from fewer would be noise.</p>"
        )
    return (
        "<details><summary>Drop by class (the class that full precision answers, of five images or more)"
        f"</summary>{_charts(drawn)}</details>"
    )


def _best_of_engines(report: Report, one: Flips) -> list[tuple[int, ReportRow]]:
    best: dict[tuple[str, str], int] = {}
    for index in one.rows:
        cells = report.rows[index].cells
        key = (cells["engine"], cells["bits"])
        if not cells["reference"] and (
            key not in best or cells["mean"] > report.rows[best[key]].cells["mean"]
        ):
            best[key] = index
    return [(index, report.rows[index]) for index in best.values()]


def notes_section(report: Report) -> str:
    """Failures and notes, each once, with the rows it is about."""
    about: dict[str, dict[str, None]] = defaultdict(dict)
    for row in report.rows:
        name = f"{name_of(row.row)} {row.cells['backbone']} {row.cells['bits']}"
        for note in row.cells["notes"]:
            about[note][name] = None
        if row.cells["status"] != "ok":
            about[f"{row.cells['status'].replace('_', ' ')}: {row.cells['reason']}"][name] = None
    said = [
        *((note, list(names)) for note, names in about.items()),
        *((m, []) for m in report.extras.missing),
    ]
    if not said:
        return ""
    return "<ul>" + "".join(f"<li>{html.escape(_note(note, names))}</li>" for note, names in said) + "</ul>"


def _note(note: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"{', '.join(names[:6])}{more}: {note}" if names else note


def _measured(report: Report) -> Iterator[ReportRow]:
    return (row for row in report.rows if row.cells["mean"] is not None)


def _short(row: ReportRow) -> str:
    return f"{name_of(row.row)} {row.cells['bits']}"


def _metric(rows: Sequence[ReportRow]) -> str:
    return metric_of(rows[0].cells["metric"]).label


def _widths(bits: str) -> list[int]:
    return [int(width) for width in re.findall(r"[0-9]{1,9}", bits)]


def _charts(drawn: Sequence[tuple[str, Callable[[], str]]]) -> str:
    """Charts side by side, each with its backbone, so that the page's filter finds it."""
    if not drawn:
        return ""
    shown = "".join(
        f'<div data-backbone="{html.escape(backbone, quote=True)}">{draw()}</div>' if backbone else draw()
        for backbone, draw in drawn[:_MOST_CHARTS]
    )
    left = len(drawn) - _MOST_CHARTS
    more = f"<p>{left} more charts are left out.</p>" if left > 0 else ""
    return f'<div class="charts">{shown}</div>{more}'


def _table(header: Sequence[Any], lines: Sequence[Sequence[Any]]) -> str:
    heads = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in header)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in line) + "</tr>" for line in lines
    )
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _folded(table: str, lines: int, most: int = 12) -> str:
    return table if lines <= most else f"<details><summary>{lines} rows</summary>{table}</details>"
