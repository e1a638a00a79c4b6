"""`harness tune`: search a method's settings and measure what the best ones gain over its defaults."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import typer

from harness.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from harness.execution.run import RunOutcome
    from harness.planning.request import Request
    from harness.planning.session import Session
    from harness.tuning.options import TuneOptions
    from harness.tuning.tune import Tuned

EPILOG = (
    "harness tune --suite digits_w3a3 --method maskaq --trials 30   |   "
    "harness tune --suite digits_w3a3 --all-methods --budget-seconds 300   |   "
    "harness run --suite digits_w3a3 --methods maskaq --set-file dfq-store/studies/STUDY/best.yaml"
)


def tune(
    suite: o.SuiteOption,
    method: str = typer.Option(
        "",
        "--method",
        "--methods",
        "-m",
        help="What to search; several methods get the same budget each.",
    ),
    backbone: str = typer.Option("", "--backbone", "--backbones", help="Only this backbone."),
    bits: str = typer.Option("", "--bits", help="Only this bit-width."),
    trials: int = typer.Option(50, min=1, help="Trials of the study, pruned and failed ones included."),
    budget_seconds: float | None = typer.Option(
        None,
        "--budget-seconds",
        min=1,
        help="Seconds of search per method; a try that ends later does not count.",
    ),
    all_methods: bool = typer.Option(
        False, "--all-methods", help="Search every method of the suite with the same budget each."
    ),
    objective: str | None = typer.Option(
        None,
        help="agreement (data-free; the default), accuracy (on the tuning split); costs beside one, as "
        "in accuracy,seconds: seconds, gpu_seconds, peak_memory_mb.",
    ),
    space: str | None = typer.Option(None, help="YAML file that narrows or widens what is searched."),
    sampler: str = typer.Option("tpe", help="tpe, gp, random, grid or nsga2."),
    pruner: str | None = typer.Option(
        None, help="median (the default), hyperband or none; several objectives are not pruned."
    ),
    grid_points: int = typer.Option(3, min=2, help="Values of each range under --sampler grid."),
    study: str | None = typer.Option(None, help="Name of the study; default from what is searched."),
    study_storage: str | None = typer.Option(
        None, help="postgresql://USER@HOST/DATABASE or sqlite:///FILE; default a journal in the store."
    ),
    resume: bool = typer.Option(
        False, "--resume", help="Go on with a study, or share it with a running search."
    ),
    jobs: int | None = typer.Option(
        None, min=1, help="Tries at once; 1 repeats exactly. Default fills the cores."
    ),
    seed: int = typer.Option(0, help="Of the sampler."),
    probe: str | None = typer.Option(
        None, help="Method whose images measure the agreement; default fdd, on detectors psaq_vit."
    ),
    final_seeds: str = typer.Option(
        "", help="Seeds of default against best; default three that no try used."
    ),
    seeds: o.SeedsOption = "",
    engine: o.EnginesOption = "",
    budget: o.BudgetOption = None,
    scope: o.ScopeOption = None,
    set_: o.SetOption = None,
    data: o.DataOption = None,
    weights: o.WeightsOption = None,
    store: o.StoreOption = None,
    config: o.ConfigOption = None,
    plugin: o.PluginOption = None,
    scheduler: o.SchedulerOption = "ray",
    ray_address: o.RayAddressOption = None,
    device: o.DeviceOption = "auto",
    cpus_per_trial: o.CpusOption = 1,
    gpus_per_trial: o.GpusOption = None,
    batch_size: o.BatchOption = 32,
    tracking_uri: o.TrackingOption = None,
) -> None:
    """Search a method's settings; ends with the best as a file and its measured gain over the defaults."""
    from harness.errors import UsageError
    from harness.tuning.options import TuneOptions

    if all_methods == bool(method):
        raise UsageError("choose with --method NAME what is searched, or give --all-methods")
    several = all_methods or len(o.split(method)) > 1
    if several and (study or space):
        raise UsageError("--study and --space are about one method, several are searched here")
    console, made = o.console(), o.scheduler_of(scheduler, ray_address)
    request = o.request(
        suite=suite,
        methods=method,
        backbones=backbone,
        bits=bits,
        seeds=seeds,
        engines=engine,
        budget=budget,
        scope=scope,
        assignments=set_,
        data=data,
        weights=weights,
        store=store,
        config=config,
        plugins=plugin,
        device=device,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        batch_size=batch_size,
    )
    options = TuneOptions(
        trials=trials,
        seconds=budget_seconds,
        sampler=sampler,
        pruner=pruner,
        objective=objective,
        space=space,
        grid_points=grid_points,
        study=study,
        storage=study_storage,
        resume=resume,
        jobs=jobs,
        seed=seed,
        probe=probe,
        final_seeds=_whole_numbers(final_seeds),
        equally=several,
    )
    if tracking_uri is not None:
        o.refuse_unreachable(tracking_uri, suite)
    with o.stoppable(console, "No finished try is lost: give the same command with --resume."):
        try:
            good = _tune(request, options, made, tracking_uri, console)
        finally:
            made.close()
    if not good:
        raise typer.Exit(1)


def _tune(
    request: Request, options: TuneOptions, scheduler: Any, tracking_uri: str | None, console: Console
) -> bool:
    """Search, report, measure; whether every trial of the final comparison has a result."""
    from harness.planning.session import open_workbench
    from harness.tuning.tune import final_suite, measure_final, tune_method, write_suite
    from results.tracking import Tracker, local_uri

    builder, context = open_workbench(request)
    tracker = Tracker(tracking_uri or local_uri(context.store))
    found = []
    for method in builder.suite.methods:
        tuned = tune_method(
            dataclasses.replace(request, rows=dataclasses.replace(request.rows, methods=(method,))),
            options,
            scheduler,
            tracker,
            console,
        )
        _print_tuned(tuned, options, console)
        found.append(tuned)
    if all(tuned.best is None for tuned in found):
        return False
    name = f"{builder.suite.name}-tuned" if options.equally else f"{found[0].study}-final"
    suite = final_suite(builder.suite, found, options.final_seeds, name)
    session, outcome = measure_final(suite, request, scheduler, console, with_anchors=options.equally)
    tracker.log(outcome.records, suite.name)
    _print_board(outcome, console)
    path = context.store / "studies" / f"{name}.yaml"
    write_suite(path, suite)
    _print_closing(session, path, found, tracker.uri, console)
    return outcome.all_good


def _print_tuned(tuned: Tuned, options: TuneOptions, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    if tuned.best is None:
        console.print(
            f"{tuned.study}: no trial finished; {tuned.folder / 'trials.csv'} tells why", markup=False
        )
        return
    objectives = tuned.facts["objective"].split(", ")
    said = _valued(objectives, tuned.values)
    before = (
        f"; before the search {_valued(objectives, tuned.default_values)}" if tuned.default_values else ""
    )
    table = Table(
        title=escape(f"{tuned.study}: best of {tuned.facts['trials']} trials, {said}{before}"),
        title_justify="left",
        caption="importance: share in the spread of the first objective (PED-ANOVA)"
        if tuned.shares
        else None,
        caption_justify="left",
    )
    for column in ("setting", "before", "best", "importance"):
        table.add_column(column, justify="left" if column == "setting" else "right")
    for dimension in tuned.space.dimensions:
        share = tuned.shares.get(dimension.name)
        best = tuned.best.get(dimension.name, dimension.default)
        importance = "" if share is None else f"{share:.2f}"
        table.add_row(dimension.name, _short(dimension.default), _short(best), importance)
    console.print(table)
    for point in tuned.front:
        console.print(
            f"Pareto front: try {point['number']}, {_valued(objectives, point['values'])}", markup=False
        )


def _print_board(outcome: RunOutcome, console: Console) -> None:
    from harness.reporting.leaderboard import board_of
    from results.renderers import render

    print(render(board_of(outcome.records), "table", console=console))
    for note in outcome.notes:
        console.print(f"note: {note}", markup=False)


def _print_closing(session: Session, path: Any, found: list[Tuned], uri: str, console: Console) -> None:
    seeds = ", ".join(map(str, session.suite.seeds))
    lines = [
        f"Compared on the report split with seeds {seeds}; the search scored its tries on "
        f"{found[0].facts['split']} and other seeds.",
        *(
            f"Best settings of {t.space.method}: {t.folder / 'best.yaml'}"
            for t in found
            if t.best is not None
        ),
        f"The comparison as a suite: {path} (MLflow: {uri})",
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _valued(objectives: list[str], values: tuple[float, ...]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in zip(objectives, values, strict=True))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _whole_numbers(text: str) -> tuple[int, ...]:
    from harness.errors import UsageError

    try:
        return tuple(int(word) for word in o.split(text))
    except ValueError:
        raise UsageError(f"--final-seeds {text}: whole numbers, such as 1,2,3") from None
