"""What a reader sees of a leaderboard: blocks, sections and cells as plain text, with their footnotes.

Decides content and rounding once for the terminal, Markdown, LaTeX and HTML; escapes nothing.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from results.figures import MISSING, duration, fixed, p_value
from results.grouping import DEFAULTS
from results.leaderboard import APART, Board
from results.metrics import Metric, metric_of, metrics_of
from results.record import SEVERAL

Style = Literal["plain", "best", "second", "reference", "failed", "unverified"]

Rows = Sequence[Mapping[str, Any]]

PUBLISHED_COLUMN = "Published"


@dataclass(frozen=True)
class Line:
    """One row of cells."""

    cells: tuple[str, ...]
    style: Style


@dataclass(frozen=True)
class Block:
    """Rows of one task, track and budget: never mixed in one table."""

    title: str
    header: tuple[str, ...]
    sections: tuple[tuple[Line, ...], ...]
    """Lines of one backbone and bit-width each."""


@dataclass(frozen=True)
class View:
    """A whole leaderboard."""

    blocks: tuple[Block, ...]
    footnotes: tuple[str, ...]


def view_of(board: Board) -> View:
    """The view of a leaderboard; an empty one has no blocks."""
    marks = _Marks()
    blocks = []
    for (task, track, budget), rows in _groups(board.rows, "task", "track", "budget").items():
        images = sorted({row["images"] for row in rows} - {0})
        counted = f", {' / '.join(f'{count:,}' for count in images)} images" if images else ""
        oracle, metric = any(row["oracle"] is not None for row in rows), _ranking_metric(rows)
        sections = [
            tuple(_line(row, marks, metric, oracle) for row in section)
            for section in _groups(rows, "backbone", "bits").values()
        ]
        header = _header(metric, oracle)
        blocks.append(Block(f"{task}, {track} track, budget {budget}{counted}", header, tuple(sections)))
    return View(tuple(blocks), (*board.remarks, *_footnotes(board.rows, marks)))


def _groups(rows: Rows, *names: str) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """The rows by their values of these columns, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


class _Marks:
    """Hands out the letters of sources and the numbers of failures, in order of first use."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.failures: dict[str, str] = {}

    def source(self, text: str) -> str:
        count = len(self.sources)
        letter = string.ascii_lowercase[count % 26] * (count // 26 + 1)
        return self.sources.setdefault(text, letter)

    def failure(self, text: str) -> str:
        return self.failures.setdefault(text, str(len(self.failures) + 1))


def _ranking_metric(rows: Rows) -> Metric:
    """The metric of the rows with a result where there is one: a trial that failed knows none."""
    return metric_of(next((row for row in rows if row["seeds"]), rows[0])["metric"])


def _header(metric: Metric, oracle: bool) -> tuple[str, ...]:
    marked = ("Oracle",) if oracle else ()
    score = (metric.label, *metric.beside.values())
    quality = (*score, "n", "Drop", "Agree", *marked, PUBLISHED_COLUMN)
    return ("#", "Backbone", "Bits", "Method", *quality, "Cost", "p", "Prot.")


def _line(row: Mapping[str, Any], marks: _Marks, metric: Metric, oracle: bool) -> Line:
    failure = f" [{marks.failure(_failure(row))}]" if row["status"] != "ok" else ""
    score, seeds = _score(row["mean"], row["std"]), f"{row['seeds']}/{row['seeds_planned']}"
    if row["status"] == "ok":
        seeds = str(row["seeds"])
    elif row["status"] == "partial":
        seeds += failure
    else:
        score = row["status"].replace("_", " ") + failure
    cells = (
        "ref" if row["reference"] else fixed(row["rank"], 0),
        row["backbone"],
        row["bits"],
        _name(row) + (f" ({row['variant']})" if row["variant"] else ""),
        score,
        *(fixed(row[name], 1) for name in metric.beside),
        seeds,
        fixed(row["drop"], 2),
        fixed(row["agreement"], 2),
        *((fixed(row["oracle"], 2),) if oracle else ()),
        _published(row, marks),
        _cost(row["synthesis_seconds"], row["quantization_seconds"], row["cost_devices"]),
        p_value(row["p_vs_best"]),
        row["fingerprint"][:4] or MISSING,
    )
    return Line(cells, _style(row))


def _style(row: Mapping[str, Any]) -> Style:
    if not row["seeds"]:
        return "failed"
    if row.get("unverified"):
        return "unverified"
    if row["reference"]:
        return "reference"
    places: dict[int | None, Style] = {1: "best", 2: "second"}
    return places.get(row["rank"], "plain")


def _name(row: Mapping[str, Any]) -> str:
    return row["method"] if row["engine"] == "none" else f"{row['method']} + {row['engine']}"


def _failure(row: Mapping[str, Any]) -> str:
    return f"{row['status'].replace('_', ' ')}: {row['reason']}"


def _score(mean: float | None, std: float | None) -> str:
    return fixed(mean, 2) if std is None else f"{fixed(mean, 2)} ± {fixed(std, 2)}"


def _published(row: Mapping[str, Any], marks: _Marks) -> str:
    if row["published"] is None:
        return MISSING
    source = "; ".join(text for text in (row["published_source"], row["published_note"]) if text)
    return f"{row['published']:.2f} [{marks.source(source)}]"


def _cost(synthesis_seconds: float | None, quantization_seconds: float | None, devices: str) -> str:
    """Both parts; apart by a comma where they were taken on different devices and do not add up."""
    parts = (synthesis_seconds, quantization_seconds)
    if APART in devices or SEVERAL in devices:
        return APART.join(MISSING if part is None else duration(part) for part in parts)
    return MISSING if parts == (None, None) else "+".join(duration(part or 0) for part in parts)


def _footnotes(rows: Rows, marks: _Marks) -> Iterator[str]:
    if not rows:
        yield "No records."
        return
    if "unverified" in rows[0]:
        verified = ", ".join(dict.fromkeys(_name(row) for row in rows if not row["unverified"]))
        yield (
            "Grey: nobody repeated a trial of the row here. "
            f"Repeated, with the same answer: {verified or 'none'}."
        )
    if any(row["seeds"] == 1 for row in rows):
        yield "n: number of seeds; n = 1 is a single run, so it has no deviation."
    if any(row["reference"] for row in rows):
        yield "ref: full precision and real images are references, not data-free; they have no rank."
    if any(row["budget"] != "paper" for row in rows):
        yield "Budgets fast and smoke do less work than the papers' recipes; budgets are ranked apart."
    if named := _methods_that_see(rows, "class names"):
        yield f"Sees the names of the classes: {named}."
    if named := _methods_that_see(rows, "own images"):
        yield f"Uses the user's own pictures, data-free only as far as these are: {named}."
    if any(row["variant"] == DEFAULTS for row in rows):
        yield (
            "Paper defaults: values of the paper or its code, under this budget and the suite's overrides; "
            "tuned: found by a search that saw neither the report split nor these seeds' scores."
        )
    if any(row["oracle"] is not None for row in rows):
        yield "Oracle: the best epoch by real images, which no data-free user can pick; never ranked."
    if ranked := [row for row in rows if row["rank"] is not None]:
        yield from _how_ranked(ranked)
    yield "Cost: synthesis + quantization, wall-clock per seed; synthesis that trials share counts for each."
    places = {one for row in rows for part in row["cost_devices"].split(APART) for one in part.split(SEVERAL)}
    if len(places - {""}) > 1:
        named = "; ".join(sorted(places - {""}))
        yield (
            f"Costs were taken on several devices ({named}); CSV and JSON tell which. "
            "Those of different devices do not add up: a comma stands between them, or they are left out."
        )
    if marks.sources:
        yield "Published: read in the source named by its letter, on the whole data set; not measured here."
        yield from (f"[{letter}] {source}" for source, letter in marks.sources.items())
    yield from _withheld(rows)
    yield from (f"[{number}] {failure}" for failure, number in marks.failures.items())
    yield from _notes(rows)


def _methods_that_see(rows: Rows, data: str) -> str:
    """The methods that use data of this kind, each once."""
    return ", ".join(dict.fromkeys(row["method"] for row in rows if row["data_use"] == data))


def _how_ranked(ranked: Rows) -> Iterator[str]:
    yield f"Drop: percentage points below full precision; Agree: {' or '.join(_each(ranked, 'agreement'))}."
    used = {row["p_test"] for row in ranked}
    if used - {""}:
        tests = {"mcnemar": "exact McNemar", "bootstrap": "bootstrap over images and seeds"}
        names = " or ".join(text for name, text in tests.items() if name in used)
        compared = ", ".join(dict.fromkeys([names, *_each(ranked, "per_image")]))
        yield f"p: against the best of the group, image by image ({compared}), Holm-corrected."
    whole = [row for row in ranked if row["track"] == "published"]
    protocols = _groups(whole, "task", "budget", "backbone", "bits").values()
    if any(len({row["fingerprint"] for row in together}) > 1 for together in protocols):
        yield (
            "Protocols differ between rows ranked together: the published track ranks whole methods, "
            "quantizer included; only rows with one Prot. (start of the fingerprint) compare images alone."
        )
    if any(row["track"] == "controlled" for row in ranked):
        yield "Controlled track: ranks hold within one engine and one protocol."


def _each(rows: Rows, fact: Literal["agreement", "per_image"]) -> list[str]:
    """What the metrics table says of the rows' metrics, each text once."""
    facts: list[str] = [getattr(metric, fact) for metric in metrics_of(row["metric"] for row in rows)]
    return list(dict.fromkeys(filter(None, facts)))


def _withheld(rows: Rows) -> Iterator[str]:
    """Why published numbers are not shown, each reason with the rows that it is about."""
    about: dict[str, dict[str, None]] = {}
    for row in rows:
        if row["published_withheld"]:
            about.setdefault(row["published_withheld"], {})[_name(row)] = None
    if about:
        reasons = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in about.items())
        yield f"Published numbers left out beside rows that are not the paper's: {reasons}."


def _notes(rows: Rows) -> Iterator[str]:
    """Each note once, with the rows it is about."""
    about: dict[str, dict[str, None]] = {}
    for row in rows:
        for note in row["notes"]:
            about.setdefault(note, {})[f"{_name(row)} {row['backbone']}"] = None
    for note, names in about.items():
        yield f"{', '.join(names)}: {note}"
