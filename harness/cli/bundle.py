"""`harness bundle` and `harness board`: records as a file that others can check, and the table of such."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from backbones.names import shown
from harness.cli.hints import shell_words
from harness.cli.leaderboard import LeaderboardOptions, records_of_suite, show_board, store_of
from harness.cli.options import typed_again, with_options
from harness.cli.terminal import output_console
from harness.cli.tracking import Tracking
from harness.errors import Faults, UsageError
from harness.planning.plan import trials_of
from harness.planning.request import Places, option
from harness.reporting.bundles import PARTS, read_bundle, write_bundle
from harness.reporting.leaderboard import board_of
from harness.reporting.verdicts import Verdicts
from results.renderers import FORMATS


@dataclass(frozen=True)
class BundleOptions:
    """What goes into a bundle."""

    panel: ClassVar[str] = "What to bundle"
    suites: tuple[str, ...] = option(
        (), "--suite", "-s", help="Suites, comma-separated or one each.", commas=True, metavar="NAMES"
    )
    parts: tuple[str, ...] = option(
        (), "--with", help="Also students, images or both, comma-separated.", commas=True, metavar="PARTS"
    )
    note: str = option("", "--note", help="A sentence that readers see below the table.", metavar="TEXT")


@with_options(
    BundleOptions,
    Places,
    Tracking,
    required=("suites",),
    only=("suites", "parts", "note", "store", "config", "uri"),
)
def bundle(
    options: BundleOptions,
    places: Places,
    tracking: Tracking,
    file: str = typer.Argument(help="The bundle to write.", metavar="FILE"),
) -> None:
    """Write the records of suites into one file that others can check; runs nothing."""
    faults = Faults()
    faults += [f"--with {shown(part)}: {' or '.join(PARTS)}" for part in options.parts if part not in PARTS]
    store = store_of(places)
    found = []
    for name in dict.fromkeys(options.suites):
        with faults.gathered():
            found.append(records_of_suite(name, store, tracking))
    faults.raise_any()
    trials = {trial.trial: trial for plan in store.plans() for trial in trials_of(plan)}
    path = Path(file)
    try:
        parts = [part for part in PARTS if part in options.parts]
        write_bundle(path, found, trials, store, parts=parts, note=options.note)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    count = sum(len(one.records) for one in found)
    named = ", ".join(one.suite for one in found)
    said = f"{path}: {count} records of {named}, {path.stat().st_size:,} bytes"
    output_console().print(said, markup=False, soft_wrap=True)


@with_options(LeaderboardOptions)
def board(
    options: LeaderboardOptions,
    files: Annotated[list[str], typer.Argument(help="Bundles to show together.", metavar="FILE...")],
) -> None:
    """Show the leaderboard of bundles; rows that nobody verified here are grey."""
    faults = Faults()
    if options.format not in FORMATS:
        faults.append(f"--format {options.format}: one of {', '.join(FORMATS)}")
    bundles = []
    for name in files:
        with faults.gathered():
            bundles.append(read_bundle(Path(name)))
    faults.raise_any()
    records = [record for one in bundles for record in one.records]
    remarks = [remark for one in bundles for suite in one.suites for remark in suite.found.remarks()]
    sound = {trial for one in bundles for trial in Verdicts.beside(one).sound}
    remarks += [one.note for one in bundles if one.note]
    made = board_of(records, published=options.published, remarks=remarks, sound=sound)
    # The file says itself how it was made.
    command = shell_words(["harness", "board", *files, *typed_again(options)])
    show_board(made, options.format, options.output, f"<!-- {command} -->\n\n")
