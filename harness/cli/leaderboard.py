"""`harness leaderboard`: the table of a suite from its records, in several formats."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from backbones.names import shown, suggestion
from harness.cli.options import with_options
from harness.cli.terminal import file_console, output_console
from harness.cli.tracking import Tracking
from harness.errors import Faults, UsageError, printable
from harness.planning.request import Places, Request, Rows, option
from harness.planning.session import load_plugins_of
from harness.reporting.choosing import chosen
from harness.reporting.leaderboard import board_of
from harness.reporting.suite_runs import SuiteRecords, suite_names_in, suite_records
from harness.store import Store, open_store
from harness.store.files import write_text
from harness.suites.loading import suite_name, suite_names
from harness.suites.locations import find_locations
from results.leaderboard import Board
from results.record import Record
from results.renderers import FORMATS, render
from results.tracking import TrackingError

_FILE_WIDTH = 140
NOT_READ = {"data": "Not read; a run's options may stand here.", "weights": "Not read; as --data."}
"""Help of options that records make needless."""


@dataclass(frozen=True)
class LeaderboardOptions:
    """How the leaderboard is shown."""

    panel: ClassVar[str] = "Output"
    format: str = option(
        "table", "--format", "-f", help="Format: table, md, csv, json, latex or html.", metavar="NAME"
    )
    output: str | None = option(None, "--output", "-o", help="Write to this file instead.", metavar="FILE")
    published: bool = option(
        True, "--published/--no-published", help="Show published numbers beside the measured ones."
    )


@with_options(
    Rows,
    Places,
    LeaderboardOptions,
    Tracking,
    required=("suite",),
    helps=NOT_READ,
)
def show_leaderboard(rows: Rows, places: Places, options: LeaderboardOptions, tracking: Tracking) -> None:
    """Show a suite's leaderboard from its records; runs nothing and needs neither weights nor data."""
    faults = Faults()
    if options.format not in FORMATS:
        faults.append(f"--format {options.format}: one of {', '.join(FORMATS)}")
    with faults.gathered():
        load_plugins_of(Request(rows, places))
    with faults.gathered():
        found = records_of_suite(rows.suite, store_of(places), tracking)
    faults.raise_any()
    board = board_of(chosen(found.records, rows), published=options.published, remarks=found.remarks())
    show_board(board, options.format, options.output)


def show_board(board: Board, format: str, output: str | None, head: str = "") -> None:
    """Write a board to stdout or a file; where a format has no place for its remarks, stderr has.

    `head` is what Markdown begins with.
    """
    head = head if format == "md" else ""
    if format in ("csv", "json"):
        for remark in board.remarks:
            print(f"harness: {printable(remark)}", file=sys.stderr)
    if output is None:
        sys.stdout.write(f"{head}{render(board, format, console=output_console()).rstrip()}\n")
        return
    text = head + render(board, format, console=file_console(_FILE_WIDTH))
    try:
        write_text(Path(output), text)
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}") from None


def store_of(places: Places) -> Store:
    """The store at these places; raises UsageError for a file of places that cannot be read."""
    return open_store(find_locations(places.data, places.weights, places.store, places.config).store)


def records_of_suite(name_or_file: str, store: Store, tracking: Tracking) -> SuiteRecords:
    """A suite's records in the store, those that are tracked standing in for what it lacks.

    A tracking database of the store that was lost is refilled. Raises UsageError where there is no record.
    """
    suite = suite_name(name_or_file)
    if tracking.uri is None and not store.root.is_dir():
        raise UsageError(f"no store at {store.root}: give --store DIR, or run the suite first")
    tracked: list[Record] = []
    if not tracking.is_read_only(store.root):  # MLflow opens no database that is read-only
        try:
            tracker = tracking.tracker(store.root)
            if tracking.uri is None:
                tracker.log(suite_records(store, suite).records, suite)
            tracked = tracker.load(suite)
        except TrackingError as error:
            raise UsageError(str(error)) from None
    found = suite_records(store, suite, tracked)
    if not found.records:
        known = suite_names_in(store)
        near = suggestion(suite, [*known, *suite_names()])
        there = f"; it has runs of {', '.join(known)}" if known else ""
        raise UsageError(f"no record of the suite '{shown(suite)}' in {store.root}{near}{there}")
    return found
