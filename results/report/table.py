"""The table of the page: its columns, its rows as HTML that reads without a script, and its data."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from results.figures import MISSING, duration, fixed, p_value
from results.metrics import metrics_of
from results.record import Record
from results.report.report import FACETS, Report, ReportRow


class Column(NamedTuple):
    """A column of the table."""

    name: str
    label: str
    text: Callable[[ReportRow], str]
    key: Callable[[ReportRow], Any]
    """What it is sorted by; None comes last."""
    left: bool = False


def columns_of(report: Report) -> list[Column]:
    """Those that tell something: what is the same for every row stands above the table instead."""
    label = " / ".join(metric.label for metric in metrics_of(row.cells["metric"] for row in report.rows))
    names = [name for name in ("backbone", "bits", "task", "track", "budget") if len(report.values[name]) > 1]
    return [
        Column("rank", "Rank", _rank, lambda row: row.tied_rank),
        Column("method", "Method", _method, lambda row: row.cells["method"], left=True),
        Column(
            "engine", "Engine", lambda row: _word(row, "engine"), lambda row: _word(row, "engine"), left=True
        ),
        *(_plain(name) for name in names),
        Column("score", label, _score, lambda row: row.cells["mean"]),
        Column("interval", "95 %", _interval, lambda row: row.interval.low if row.interval else None),
        Column("seeds", "Seeds", _seeds, lambda row: row.cells["seeds"]),
        _number("drop", "Drop", 2),
        _number("agreement", "Agree", 1),
        Column("published", "Published", _published, lambda row: row.verdict.published),
        Column("verdict", "Verdict", _verdict, lambda row: row.verdict.text, left=True),
        Column(
            "cost", "From scratch", lambda row: duration(row.scratch_seconds), lambda row: row.scratch_seconds
        ),
        Column("p", "p", lambda row: p_value(row.cells["p_vs_best"]), lambda row: row.cells["p_vs_best"]),
    ]


def table_html(report: Report, columns: Sequence[Column]) -> str:
    """The table; a row's method is a button, and a header is one too."""
    heads = "".join(
        f'<th scope="col" data-column="{c.name}"{_left(c)}><button type="button">{html.escape(c.label)}'
        "</button></th>"
        for c in columns
    )
    best = {index for group, _ in report.groups for index in group if report.rows[index].tied_rank == 1}
    lines = []
    for index, row in enumerate(report.rows):
        kind = "failed" if not row.cells["seeds"] else "reference" if row.cells["reference"] else ""
        kind = "best" if index in best else kind
        cells = "".join(_cell(column, row) for column in columns)
        lines.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
    body = "\n".join(lines)
    return f'<table id="rows"><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'


def labels_css(columns: Sequence[Column]) -> str:
    """The style rules that put a column's name before its cell where the table is a list of cards."""
    return "\n".join(
        f'#rows>tbody>tr:not(.detail)>td:nth-child({place})::before{{content:"{_css(column.label)}"}}'
        for place, column in enumerate(columns, start=1)
        if column.name not in ("rank", "method")
    )


def data_of(report: Report, columns: Sequence[Column]) -> dict[str, Any]:
    """What the script needs: facets and sort keys of each row, and what opens below it."""
    pool = _Pool()
    rows = [
        {
            "id": row.row.first.trial[:12],
            "f": [*(pool.add(row.cells[name]) for name in FACETS[:-1]), [pool.add(s) for s in row.suites]],
            "s": [_rounded(column.key(row)) for column in columns],
            "d": _details(row, pool),
        }
        for row in report.rows
    ]
    return {"facets": FACETS, "columns": [c.name for c in columns], "rows": rows, "pool": pool.values}


class _Pool:
    """Values that many rows share, each kept once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def add(self, value: Any, key: str = "") -> int:
        """The place of a value; `key` tells it from others where the caller knows one."""
        # A text is its own key; the JSON of anything else begins with a bracket.
        key = key or (value if isinstance(value, str) else json.dumps(value))
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


def _details(row: ReportRow, pool: _Pool) -> dict[str, Any]:
    one = row.row.first
    verdict = row.verdict
    published = "; ".join(text for text in (verdict.source, verdict.note) if text)
    said = {
        "command": row.command,
        "verdict": verdict.text,
        "published": f"{verdict.published:.2f}: {published}" if verdict.published is not None else "",
        "reason": row.cells["reason"],
        "data": one.data_use,
        "fingerprint": row.cells["fingerprint"],
        "weights": one.weights_sha256,
    }
    pooled = {
        "settings": one.settings,
        "environment": one.environment,
        "devices": one.cost_devices,
        "tuning": one.tuning,
        "notes": list(row.cells["notes"]),
    }
    return {
        **{name: text for name, text in said.items() if text},
        **{name: pool.add(value) for name, value in pooled.items() if value},
        **({"protocol": pool.add(one.protocol, one.fingerprint)} if one.protocol else {}),
        **({"shares": _numbers(one.gradient_shares, pool)} if one.gradient_shares else {}),
        "seeds": [_seed(record, pool) for record in row.row.records],
    }


def _seed(record: Record, pool: _Pool) -> list[Any]:
    """Seed, trial, when it ended or why it has no result, its metrics, and its costs."""
    said = record.finished_at if record.status == "ok" else f"{record.status}: {record.reason}"
    return [record.seed, record.trial, said, _numbers(record.metrics, pool), _numbers(record.cost, pool)]


def _numbers(values: Mapping[str, float], pool: _Pool) -> list[Any]:
    """The place of the names in the pool, then the numbers."""
    return [pool.add(list(values)), *map(_rounded, values.values())]


def _rounded(value: Any) -> Any:
    """Five figures of a number, and nothing of what JSON cannot hold."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if value == value and abs(value) != float("inf") else None


def _cell(column: Column, row: ReportRow) -> str:
    text = html.escape(column.text(row))
    if column.name == "method":
        text = f'<button type="button" aria-expanded="false">{text}</button>'
    if column.name == "verdict" and row.verdict.differs:
        what, _, why = text.partition(": ")
        text = f"{what}: <small>{why}</small>"
    kinds = (
        ["left"] * column.left
        + ["score"] * (column.name == "score")
        + [f"v-{row.verdict.judgement.split()[0]}"] * (column.name == "verdict")
    )
    return f'<td class="{" ".join(kinds)}">{text}</td>' if kinds else f"<td>{text}</td>"


def _left(column: Column) -> str:
    return ' class="left"' if column.left else ""


def _css(text: str) -> str:
    return "".join(f"\\{ord(c):x} " if not c.isalnum() and c != " " else c for c in text)


def _plain(name: str) -> Column:
    return Column(
        name, name.capitalize(), lambda row: _word(row, name), lambda row: row.cells[name], left=True
    )


def _number(name: str, label: str, digits: int) -> Column:
    return Column(name, label, lambda row: fixed(row.cells[name], digits), lambda row: row.cells[name])


def _word(row: ReportRow, name: str) -> str:
    return MISSING if row.cells[name] == "none" else str(row.cells[name])


def _rank(row: ReportRow) -> str:
    return "ref" if row.cells["reference"] else fixed(row.tied_rank, 0)


def _method(row: ReportRow) -> str:
    return f"{row.cells['method']} ({row.cells['variant']})" if row.cells["variant"] else row.cells["method"]


def _score(row: ReportRow) -> str:
    if not row.cells["seeds"]:
        return str(row.cells["status"]).replace("_", " ")
    std = row.cells["std"]
    return fixed(row.cells["mean"], 2) + ("" if std is None else f" ± {fixed(std, 2)}")


def _interval(row: ReportRow) -> str:
    if row.interval is None:
        return MISSING
    return f"{row.interval.low:.1f}–{row.interval.high:.1f}"


def _seeds(row: ReportRow) -> str:
    cells = row.cells
    return str(cells["seeds"]) if cells["status"] == "ok" else f"{cells['seeds']}/{cells['seeds_planned']}"


def _verdict(row: ReportRow) -> str:
    return MISSING if row.verdict.published is None else row.verdict.text


def _published(row: ReportRow) -> str:
    verdict = row.verdict
    if verdict.published is None:
        return MISSING
    difference = "" if verdict.difference is None else f" ({verdict.difference:+.2f})"
    return f"{verdict.published:.2f}{difference}"


def flat_rows(report: Report) -> Iterator[dict[str, Any]]:
    """Every column of the leaderboard and of the report, one plain mapping a row."""
    for row in report.rows:
        cells: Mapping[str, Any] = row.cells
        yield {
            **cells,
            "published_others": json.dumps(list(cells["published_others"])),
            "notes": "; ".join(cells["notes"]),
            "tied_rank": row.tied_rank,
            "interval_low": row.interval.low if row.interval else None,
            "interval_high": row.interval.high if row.interval else None,
            "from_scratch_seconds": row.scratch_seconds,
            "verdict": row.verdict.judgement,
            "verdict_differs": ", ".join(row.verdict.differs),
            "verdict_published": row.verdict.published,
            "verdict_source": row.verdict.source,
            "verdict_difference": row.verdict.difference,
            "suites": ", ".join(row.suites),
            "command": row.command,
        }
