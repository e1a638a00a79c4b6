"""The contents of a report: every row of the leaderboard with what the statistics say about it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from results.grouping import Row
from results.leaderboard import Board, full_precision_scores, seconds_from_scratch, teacher_of
from results.published import PublishedNames
from results.ranking import outcomes_of, ranked_groups
from results.report.average_ranks import AverageRanks, average_ranks
from results.report.detectable import Detectable, detectable
from results.report.ties import tied_ranks
from results.report.uncertainty import interval_of
from results.report.verdicts import Verdict, verdict_of
from results.statistics import Interval

FACETS = ("method", "engine", "backbone", "bits", "task", "track", "budget", "suite")
"""What rows are filtered by, in the order of the page's controls and of each row's data."""


@dataclass(frozen=True)
class Picture:
    """An image to be shown, with what it is."""

    data: str
    """`data:` address."""
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Synthesized images of one set."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Curve:
    """Values over iterations or epochs, by name."""

    title: str
    steps: tuple[float, ...]
    values: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Teacher:
    """What full precision says of each image, by the digest of the samples and the backbone."""

    answers: Sequence[int]
    """(n,) predicted class."""
    margins: Sequence[float]
    """(n,) probability of that class minus the next one's."""


@dataclass(frozen=True)
class Extras:
    """What a store adds to records; all of it may be missing."""

    galleries: tuple[Gallery, ...] = ()
    curves: tuple[Curve, ...] = ()
    teachers: Mapping[tuple[str, str], Teacher] = field(default_factory=dict)
    """(backbone, digest of the samples) -> what full precision says."""
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Task -> names of its classes."""
    missing: tuple[str, ...] = ()
    """What could not be shown and why, a sentence each."""


@dataclass(frozen=True)
class ReportRow:
    """One row, with what the leaderboard's own columns do not say."""

    cells: Mapping[str, Any]
    """The leaderboard's columns."""
    row: Row
    suites: tuple[str, ...]
    interval: Interval | None
    """95 % of the mean over images and, where there are several, seeds, in points."""
    tied_rank: int | None
    verdict: Verdict
    command: str
    """What repeats it."""

    @property
    def scratch_seconds(self) -> float | None:
        """What the row costs from scratch; see `seconds_from_scratch`."""
        return seconds_from_scratch(self.cells)


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    suites: tuple[str, ...]
    rows: tuple[ReportRow, ...]
    groups: tuple[tuple[tuple[int, ...], Detectable | None], ...]
    """Indices of rows that are ranked together, and what these could have told apart."""
    ranks: tuple[AverageRanks, ...]
    extras: Extras

    @functools.cached_property
    def values(self) -> Mapping[str, list[str]]:
        """Facet -> every value that some row has, sorted."""
        found = {name: {row.cells[name] for row in self.rows} for name in FACETS if name != "suite"}
        found["suite"] = {name for row in self.rows for name in row.suites}
        return {name: sorted(found[name]) for name in FACETS}


def report_of(
    board: Board,
    names: PublishedNames,
    *,
    suites: Mapping[str, Sequence[str]],
    commands: Sequence[str],
    extras: Extras | None = None,
) -> Report:
    """The report of a board.

    `suites` maps a trial's key to the suites that it belongs to; `commands` has one text for each row.
    """
    rows = board.sources
    ties = tied_ranks(rows, [cells["p_vs_best"] for cells in board.rows])
    teachers = full_precision_scores(rows)
    made = []
    for index, (cells, row, command) in enumerate(zip(board.rows, rows, commands, strict=True)):
        interval = _interval(row)
        teacher = teachers.get(teacher_of(row))
        belongs = dict.fromkeys(name for record in row.records for name in suites.get(record.trial, ()))
        made.append(
            ReportRow(
                cells,
                row,
                tuple(belongs),
                interval,
                ties.get(index),
                verdict_of(row, names, interval, teacher),
                command,
            )
        )
    groups = [(tuple(group), detectable([rows[i] for i in group])) for group in ranked_groups(rows)]
    named = tuple(dict.fromkeys(name for belongs in suites.values() for name in belongs))
    return Report(named, tuple(made), tuple(groups), tuple(average_ranks(rows)), extras or Extras())


def _interval(row: Row) -> Interval | None:
    """None where the metric is no mean over images: of an average precision, say."""
    one = row.first
    if row.score() is None or one.metric not in one.outcomes:
        return None
    values = outcomes_of(row)
    if values is None:
        return None
    low, high = interval_of(values)
    return Interval(100 * low, 100 * high)
