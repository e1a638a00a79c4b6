"""`harness tune`: search a method's settings and measure what the best ones gain over its defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import typer

from harness.cli.options import with_options
from harness.cli.scheduling import scheduler_of
from harness.cli.stopping import stoppable
from harness.cli.terminal import output_console
from harness.cli.tracking import Tracking
from harness.cli.tuning_report import print_board, print_closing, print_tuned
from harness.errors import UsageError
from harness.execution.schedulers.base import Scheduler
from harness.planning.request import Machine, Places, Request, Rows, option
from harness.planning.session import open_workbench
from harness.tuning.tune import TuneOptions, final_suite, measure_final, tune_method, write_suite
from results.tracking import Tracker

if TYPE_CHECKING:
    from rich.console import Console

EPILOG = (
    "harness tune --suite digits_w3a3 --method maskaq --trials 30\n\n"
    "harness tune --suite digits_w3a3 --all-methods --budget-seconds 300\n\n"
    "harness run --suite digits_w3a3 --methods maskaq --set-file dfq-store/studies/STUDY/best.yaml"
)


@dataclass(frozen=True)
class Search(TuneOptions):
    """How to search, with the flags and help of every field."""

    panel: ClassVar[str] = "How to search"
    trials: int = option(50, help="Trials of the study, pruned and failed ones included.", low=1)
    seconds: float | None = option(
        None,
        "--budget-seconds",
        help="Seconds of search per method; a try that ends later does not count.",
        low=1,
    )
    sampler: str = option(
        "tpe", help="How settings are proposed: tpe, gp, random, grid or nsga2.", metavar="NAME"
    )
    pruner: str | None = option(
        None,
        help="How bad tries end early: median (the default), hyperband or none. With several objectives "
        "none does.",
        metavar="NAME",
    )
    objective: str | None = option(
        None,
        help="agreement (data-free; the default) or accuracy (on the tuning split), with costs beside it as "
        "in accuracy,seconds: seconds, gpu_seconds, peak_memory_mb.",
        metavar="NAMES",
    )
    space: str | None = option(
        None, help="YAML file that narrows or widens what is searched.", metavar="FILE"
    )
    grid_points: int = option(3, help="Values of each range under --sampler grid.", low=2)
    study: str | None = option(None, help="Name of the study; default from what is searched.", metavar="NAME")
    storage: str | None = option(
        None,
        "--study-storage",
        help="postgresql://USER@HOST/DATABASE or sqlite:///FILE; default a journal in the store.",
        metavar="URL",
    )
    resume: bool = option(False, "--resume", help="Go on with a study, or share it with a running search.")
    jobs: int | None = option(
        None, help="Tries at once; 1 repeats exactly. The default fills the cores.", low=1
    )
    seed: int = option(0, help="Seed of the sampler.", metavar="N")
    probe: str | None = option(
        None,
        help="Method whose images measure the agreement; default fdd, on detectors psaq_vit.",
        metavar="METHOD",
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
    Search,
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
    search: Search,
    comparison: Comparison,
    places: Places,
    machine: Machine,
    tracking: Tracking,
) -> None:
    """Search a method's settings; ends with the best as a file and its measured gain over the defaults."""
    if comparison.all_methods == bool(rows.methods):
        raise UsageError("choose with --method NAME what is searched, or give --all-methods")
    several = comparison.all_methods or len(rows.methods) > 1
    if several and (search.study or search.space):
        raise UsageError("--study and --space are about one method, several are searched here")
    console, scheduler = output_console(), scheduler_of(machine)
    final_seeds = _whole_numbers(comparison.final_seeds)
    options = dataclasses.replace(search, final_seeds=final_seeds, equally=several)
    tracking.refuse_unreachable(rows.suite)
    with stoppable(
        console, "No finished try is lost: give the same command with --resume.", resume_with=("--resume",)
    ):
        try:
            good = _tune(Request(rows, places, machine), options, scheduler, tracking, console)
        finally:
            scheduler.close()
    if not good:
        raise typer.Exit(1)


def _tune(
    request: Request, options: TuneOptions, scheduler: Scheduler, tracking: Tracking, console: Console
) -> bool:
    """Search, report, measure; whether every trial of the final comparison has a result."""
    builder, context = open_workbench(request)
    tracker = Tracker(tracking.of_store(context.store))
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
    if all(tuned.best is None for tuned in found):
        return False
    name = f"{builder.suite.name}-tuned" if options.equally else f"{found[0].study}-final"
    suite = final_suite(builder.suite, found, options.final_seeds, name)
    session, outcome = measure_final(suite, request, scheduler, console, with_anchors=options.equally)
    tracker.log(outcome.records, suite.name)
    print_board(outcome, console)
    path = context.store / "studies" / f"{name}.yaml"
    write_suite(path, suite)
    print_closing(session, path, found, tracker.uri, console)
    return outcome.all_good


def _whole_numbers(words: Sequence[str]) -> tuple[int, ...]:
    try:
        return tuple(map(int, words))
    except ValueError:
        raise UsageError(f"--final-seeds {','.join(words)}: whole numbers, such as 1,2,3") from None
