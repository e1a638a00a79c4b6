"""`harness leaderboard`: the table of a suite from its records, in several formats."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.cli.options import with_options
from harness.cli.refusing import refuse_together
from harness.cli.terminal import file_console, output_console
from harness.cli.tracking import Tracking
from harness.errors import Faults, UsageError
from harness.planning.request import Places, Request, Rows, option
from harness.planning.session import Session, open_session
from harness.reporting.leaderboard import board_of
from harness.reporting.records import records_of
from harness.store.files import write_text
from results.record import Record
from results.renderers import FORMATS, render
from results.tracking import TrackingError

_FILE_WIDTH = 140


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


@with_options(Rows, Places, LeaderboardOptions, Tracking, required=("suite",))
def show_leaderboard(rows: Rows, places: Places, options: LeaderboardOptions, tracking: Tracking) -> None:
    """Show a suite's leaderboard from its records; runs nothing."""
    request, faults = Request(rows, places), Faults()
    if options.format not in FORMATS:
        faults.append(f"--format {options.format}: one of {', '.join(FORMATS)}")
    refuse_together(faults, lambda: open_session(request))
    session = open_session(request)
    if tracking.uri is None and not session.store.root.is_dir():
        raise UsageError(f"no store at {session.store.root}: give --store DIR, or run the suite first")
    board = board_of(_records(session, tracking), published=options.published)
    if options.output is None:
        sys.stdout.write(f"{render(board, options.format, console=output_console()).rstrip()}\n")
        return
    text = render(board, options.format, console=file_console(_FILE_WIDTH))
    try:
        write_text(Path(options.output), text)
    except OSError as error:
        raise UsageError(f"--output {options.output}: {error.strerror}") from None


def _records(session: Session, tracking: Tracking) -> Sequence[Record]:
    """The store's records; for one without a result the tracked one stands in, unless it is damaged."""
    records = records_of(session.plan, session.store)

    def there(key: str) -> bool:
        return session.store.place(key).exists()

    if tracking.is_read_only(session.store.root):
        return records  # nothing can be refilled, and MLflow opens no database that is read-only
    try:
        tracker = tracking.tracker(session.store.root)
        if tracking.uri is None:
            tracker.log(records, session.suite.name)  # refills a database that was lost
        tracked = {record.trial: record for record in tracker.load(session.suite.name)}
    except TrackingError as error:
        raise UsageError(str(error)) from None
    return [tracked.get(r.trial, r) if r.status != "ok" and not there(r.trial) else r for r in records]
