"""What MLflow shows of a leaderboard: a run with a page, a file for programs, and a table."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from results.leaderboard import Board, columns
from results.new_runs import NewRun
from results.record import Record
from results.renderers import render
from results.shown_runs import NOTE, TAG_LENGTH, times_of

_TABLE = "leaderboard.json"
"""In the form of MLflow's `log_table`."""


@dataclass(frozen=True)
class ShownBoard:
    """A suite's leaderboard, ready to be logged."""

    suite: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    markdown: str
    csv: str
    start: int
    """When the first of its trials began, in milliseconds since 1970."""
    end: int
    """When the last ended."""

    @property
    def files(self) -> dict[str, str]:
        """Name -> text."""
        table = json.dumps({"columns": list(self.columns), "data": [list(row) for row in self.rows]})
        return {"leaderboard.md": self.markdown, "leaderboard.csv": self.csv, _TABLE: table}

    @property
    def content(self) -> str:
        """Digest of its files."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()

    def run(self) -> NewRun:
        """The run, which lasts from the first trial's beginning to the last one's end."""
        shows = json.dumps([{"path": _TABLE, "type": "table"}])
        note = f"The leaderboard of `{self.suite}`:\n\n{self.markdown}"
        tags = {"board": self.suite, "content": self.content, "mlflow.loggedArtifacts": shows}
        tags[NOTE] = note if len(note) <= TAG_LENGTH else f"The leaderboard of `{self.suite}`: see its files."
        return NewRun(f"leaderboard {self.suite}", True, {}, {}, tags, self.start, self.end, None)


def shown_board(suite: str, board: Board, records: Sequence[Record]) -> ShownBoard:
    """The leaderboard of a suite, made of these records."""
    names = list(columns())
    rows = [[_plain(row.get(name)) for name in names] for row in board.rows]
    start, end = _span(records)
    return ShownBoard(suite, names, rows, render(board, "md"), render(board, "csv"), start, end)


def _plain(value: object) -> object:
    """A cell as JSON has it: no tuples, and None for what is no number."""
    if isinstance(value, tuple):
        return "; ".join(map(str, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _span(records: Sequence[Record]) -> tuple[int, int]:
    """When the first of some trials began and the last ended, in milliseconds since 1970."""
    times = [times_of(record) for record in records if record.finished_at] or [(0, 0)]
    return min(start for start, _ in times), max(end for _, end in times)
