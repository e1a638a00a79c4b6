"""`harness tune`: search a method's settings and measure what the best ones gain over its defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import typer

from harness.cli.options import with_options
from harness.cli.refusing import refuse_together
from harness.cli.scheduling import scheduler_of
from harness.cli.stopping import stoppable
from harness.cli.terminal import output_console
from harness.cli.tracking import Tracking
from harness.cli.tuning_report import print_board, print_closing, print_tuned
from harness.errors import Faults, HarnessError, UsageError
from harness.execution.schedulers.base import Scheduler
from harness.planning.request import Machine, Places, Request, Rows, option
from harness.planning.session import open_workbench
from harness.tuning.options import TuneOptions
from harness.tuning.preparation import option_faults
from harness.tuning.tune import (
    final_suite,
    measure_final,
    track_verdicts,
    tune_method,
    verdicts_of,
    write_suite,
)
from results.tracking import TrackingError

if TYPE_CHECKING:
    from rich.console import Console

EPILOG = (
    "harness tune --suite digits_w3a3 --method maskaq --trials 30\n\n"
    "harness tune --suite digits_w3a3 --all-methods --budget-seconds 300\n\n"
    "harness run --suite digits_w3a3 --methods maskaq --set-file dfq-store/studies/STUDY/best.yaml"
)


@dataclass(frozen=True)
class Comparison:
    """What is searched, and what the best settings are compared with at the end."""

    panel: ClassVar[str] = "How to search"
    all_methods: bool = option(
        False, "--all-methods", help="Search every method of the suite with the same budget each."
    )
    final_seeds: tuple[str, ...] = option(
        (), help="Seeds of default against best; default three that no try used.", commas=True, metavar="N"
    )


@with_options(
    Rows,
    TuneOptions,
    Comparison,
    Places,
    Machine,
    Tracking,
    without=("set_files", "oracle"),
    required=("suite",),
    defaults={"cpus_per_trial": 1},
    helps={
        "methods": "What to search; several methods get the same budget each.",
        "backbones": "Only this backbone.",
        "bits": "Only this bit-width.",
        "cpus_per_trial": "CPU threads per stage.",
    },
)
def tune(
    rows: Rows,
    search: TuneOptions,
    comparison: Comparison,
    places: Places,
    machine: Machine,
    tracking: Tracking,
) -> None:
    """Search a method's settings; ends with the best as a file and its measured gain over the defaults."""
    console, request, faults = output_console(), Request(rows, places, machine), Faults()
    several = comparison.all_methods or len(rows.methods) > 1
    if comparison.all_methods == bool(rows.methods):
        faults.append("choose with --method NAME what is searched, or give --all-methods")
    if several and (search.study or search.space):
        faults.append("--study and --space are about one method, several are searched here")
    with faults.gathered():
        scheduler = scheduler_of(machine)
    with faults.gathered():
        final_seeds = _whole_numbers(comparison.final_seeds)
    faults += option_faults(search)
    refuse_together(faults, lambda: open_workbench(request))
    options = dataclasses.replace(search, final_seeds=final_seeds, equally=several)
    tracking.refuse_unreachable()
    with stoppable(
        console, "No finished try is lost: give the same command with --resume.", resume_with=("--resume",)
    ):
        try:
            good = _tune(request, options, scheduler, tracking, console)
        finally:
            scheduler.close()
    if not good:
        raise typer.Exit(1)


def _tune(
    request: Request, options: TuneOptions, scheduler: Scheduler, tracking: Tracking, console: Console
) -> bool:
    """Search, report, measure; whether every trial of the final comparison has a result."""
    builder, context, notes = open_workbench(request)
    for note in notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    tracker = tracking.tracker(context.store)
    found = []
    for method in builder.suite.methods:
        tuned = tune_method(
            dataclasses.replace(request, rows=dataclasses.replace(request.rows, methods=(method,))),
            options,
            scheduler,
            tracker,
            console,
        )
        print_tuned(tuned, console)
        found.append(tuned)
    untracked = next((tuned.untracked for tuned in found if tuned.untracked), "")
    if all(tuned.best is None for tuned in found):
        _raise_untracked(untracked, context.store)
        return False
    name = f"{builder.suite.name}-tuned" if options.equally else f"{found[0].study}-final"
    suite = final_suite(builder.suite, found, options.final_seeds, name)
    session, outcome = measure_final(suite, request, scheduler, console, with_anchors=options.equally)
    path = context.store / "studies" / f"{name}.yaml"
    write_suite(path, suite)
    said = verdicts_of(found, suite, outcome.records)
    try:
        tracker.log(outcome.records, suite.name)
        track_verdicts(found, said, tracker)
    except TrackingError as error:
        untracked = str(error)
    print_board(outcome, console)
    print_closing(session, path, found, said, tracker.shown_uri, console)
    _raise_untracked(untracked, context.store)
    return outcome.all_good


def _raise_untracked(why: str, store: Path) -> None:
    """Raise HarnessError where MLflow lacks tries or the comparison; nothing else is lost."""
    if why:
        raise HarnessError(
            f"tries and results are safe in {store}, but {why}; the same command with --resume tracks them"
        )


def _whole_numbers(words: Sequence[str]) -> tuple[int, ...]:
    try:
        return tuple(map(int, words))
    except ValueError:
        raise UsageError(f"--final-seeds {','.join(words)}: whole numbers, such as 1,2,3") from None
