"""`harness run`: run a suite, or what is missing of it, and show its leaderboard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import typer

from harness.cli.live_tracking import LiveTracking
from harness.cli.options import narrowing, with_options
from harness.cli.plan import print_plan
from harness.cli.refusing import refuse_together
from harness.cli.scheduling import scheduler_of
from harness.cli.stopping import stoppable
from harness.cli.terminal import output_console
from harness.cli.tracking import Tracking
from harness.errors import Faults, HarnessError
from harness.execution.run import RunOutcome, run_session
from harness.planning.request import Machine, Places, Request, Rows, option
from harness.planning.session import Session, open_session
from harness.reporting.detection_pictures import save_detection_pictures
from harness.reporting.leaderboard import board_of
from results.leaderboard import Board
from results.record import Record
from results.renderers import render
from results.shown_boards import shown_board
from results.tracking import TrackingError

if TYPE_CHECKING:
    from rich.console import Console

EPILOG = (
    "harness run --suite digits_w4a4\n\n"
    "harness run --suite imagenet_w4a8 --backbones deit_tiny --budget fast --data imagenet=DIR "
    "--weights deit_tiny=FILE"
)


@dataclass(frozen=True)
class RunOptions:
    """What only a run asks."""

    panel: ClassVar[str] = "How it runs"
    allow_fp_mismatch: bool = option(
        False, help="Run although full-precision accuracy is not the reference's; the notes say so."
    )
    dry_run: bool = option(False, help="Show the plan and run nothing.")


@with_options(Rows, Places, Machine, RunOptions, Tracking, required=("suite",))
def run(rows: Rows, places: Places, machine: Machine, options: RunOptions, tracking: Tracking) -> None:
    """Run a suite, or what is missing of it, and show its leaderboard."""
    console, request, faults = output_console(), Request(rows, places, machine), Faults()
    with faults.gathered():
        scheduler = scheduler_of(machine)
    refuse_together(faults, lambda: open_session(request))
    session = open_session(request)
    if options.dry_run:
        print_plan(session, console)
        return
    tracking.refuse_unreachable()
    with stoppable(console, "Finished stages are kept: the same command runs what is missing."):
        try:
            outcome = run_session(
                session,
                scheduler,
                console,
                allow_fp_mismatch=options.allow_fp_mismatch,
                on_record=_live(session, tracking),
            )
        finally:
            scheduler.close()
        _report(session, request, outcome, tracking, console)
    if not outcome.all_good:
        raise typer.Exit(1)


def _live(session: Session, tracking: Tracking) -> Callable[[Record], None] | None:
    """What tracks records as they come, where they can be tracked."""
    root = session.store.root
    if tracking.is_read_only(root):
        return None
    return LiveTracking(tracking.tracker(root), session.suite.name).add


def _report(
    session: Session, request: Request, outcome: RunOutcome, tracking: Tracking, console: Console
) -> None:
    """Track and show the records, then say what was run, where it is, and how to see it again."""
    store = session.store
    board = board_of(outcome.records)
    try:
        kept = _tracked(session, outcome, board, tracking)
    except TrackingError as error:
        raise HarnessError(f"the records are safe in {store.root}, but {error}") from None
    finally:
        print(render(board, "table", console=console))
    pictures = save_detection_pictures(session) if store.is_writable() else None
    lines = [
        *(f"note: {note}" for note in outcome.notes),
        *(f"Traceback: {_briefly(file)}" for file in outcome.tracebacks),
        f"{outcome.stages_run} stages run, {outcome.stages_cached} cached.",
        kept,
        *([f"Pictures: {pictures}"] if pictures else []),
        f"Again, or as md, csv, json, latex, html: harness leaderboard {narrowing(request, tracking)}",
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _briefly(file: Path) -> str:
    """The path as seen from the working folder where it lies in it."""
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def _tracked(session: Session, outcome: RunOutcome, board: Board, tracking: Tracking) -> str:
    """Track records and leaderboard where that can be; a sentence on where they are. Raises TrackingError."""
    root = session.store.root
    if tracking.is_read_only(root):
        return f"Read: {root}; nothing could be recorded in MLflow, since the store cannot be written"
    tracker = tracking.tracker(root)
    tracker.log(outcome.records, session.suite.name)
    tracker.log_board(shown_board(session.suite.name, board, outcome.records))
    return f"{'Written' if session.store.is_writable() else 'Read'}: {root} (MLflow: {tracker.shown_uri})"
