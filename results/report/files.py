"""The files of a report's folder: the page and its table in other formats."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from results.leaderboard import Board, columns
from results.renderers import render
from results.report.page import page_of
from results.report.report import Report
from results.report.table import flat_rows

NAMES = ("index.html", "table.md", "table.csv", "table.tex", "table.parquet")
_NUMBERS = (
    "interval_low",
    "interval_high",
    "from_scratch_seconds",
    "verdict_published",
    "verdict_difference",
)
MARK = "report.json"
"""Says that a folder holds a report, which may be made anew."""


class File(NamedTuple):
    """A file of the report."""

    name: str
    content: bytes


def files_of(report: Report, board: Board) -> Iterator[File]:
    """Every file but the mark; Parquet only where pyarrow is installed."""
    yield File("index.html", page_of(report).encode())
    yield File("table.md", render(board, "md").encode())
    yield File("table.tex", render(board, "latex").encode())
    rows = list(flat_rows(report))
    yield File("table.csv", _csv(rows).encode())
    if can_write_parquet():
        yield File("table.parquet", _parquet(rows))


def can_write_parquet() -> bool:
    """Whether pyarrow is installed."""
    return importlib.util.find_spec("pyarrow") is not None


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else list(columns()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The columns of the CSV with their types: text, float64, int64, and booleans."""
    import pandas as pd

    kinds = {name: kind for name, kind in columns().items() if kind != "object"}
    frame = pd.DataFrame(rows)
    known = {name: kind for name, kind in kinds.items() if name in frame}
    numbers = [name for name in _NUMBERS if name in frame]
    frame = frame.astype({**known, **dict.fromkeys(numbers, "float64")})
    if "tied_rank" in frame:
        frame = frame.astype({"tied_rank": "Int64"})
    stream = io.BytesIO()
    frame.to_parquet(stream, index=False)
    return stream.getvalue()
