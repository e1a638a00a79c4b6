"""The files of a report's folder: the page and its table in other formats."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Iterator
from typing import NamedTuple

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
    yield File("table.csv", _csv(report).encode())
    yield File("table.tex", render(board, "latex").encode())
    if can_write_parquet():
        yield File("table.parquet", _parquet(report))


def can_write_parquet() -> bool:
    """Whether pyarrow is installed."""
    return importlib.util.find_spec("pyarrow") is not None


def _csv(report: Report) -> str:
    rows = list(flat_rows(report))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else list(columns()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _parquet(report: Report) -> bytes:
    """The columns of the CSV with their types: text, float64, int64, and booleans."""
    import pandas as pd

    kinds = {name: kind for name, kind in columns().items() if kind != "object"}
    frame = pd.DataFrame(flat_rows(report))
    known = {name: kind for name, kind in kinds.items() if name in frame}
    numbers = [name for name in _NUMBERS if name in frame]
    frame = frame.astype({**known, **dict.fromkeys(numbers, "float64")})
    if "tied_rank" in frame:
        frame = frame.astype({"tied_rank": "Int64"})
    stream = io.BytesIO()
    frame.to_parquet(stream, index=False)
    return stream.getvalue()
