"""`harness run`: run a suite, or what is missing of it, and show its leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from harness.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from harness.execution.run import RunOutcome
    from harness.planning.request import Request
    from harness.planning.session import Session

EPILOG = (
    "harness run --suite digits_w4a4   |   "
    "harness run --suite imagenet_w4a8 --backbones deit_tiny --budget fast --data imagenet=DIR "
    "--weights deit_tiny=FILE"
)


def run(
    suite: o.SuiteOption,
    methods: o.MethodsOption = "",
    backbones: o.BackbonesOption = "",
    bits: o.BitsOption = "",
    seeds: o.SeedsOption = "",
    engine: o.EnginesOption = "",
    budget: o.BudgetOption = None,
    scope: o.ScopeOption = None,
    set_: o.SetOption = None,
    set_file: o.SetFileOption = None,
    data: o.DataOption = None,
    weights: o.WeightsOption = None,
    store: o.StoreOption = None,
    config: o.ConfigOption = None,
    plugin: o.PluginOption = None,
    scheduler: o.SchedulerOption = "ray",
    ray_address: o.RayAddressOption = None,
    device: o.DeviceOption = "auto",
    cpus_per_trial: o.CpusOption = None,
    gpus_per_trial: o.GpusOption = None,
    batch_size: o.BatchOption = 32,
    oracle: o.OracleOption = False,
    tracking_uri: o.TrackingOption = None,
    allow_fp_mismatch: bool = typer.Option(
        False, help="Run although full-precision accuracy is not the reference's; the notes say so."
    ),
    dry_run: bool = typer.Option(False, help="Show the plan and run nothing."),
) -> None:
    """Run a suite, or what is missing of it, and show its leaderboard."""
    from harness.execution.run import run_session
    from harness.planning.session import open_session

    console, made = o.console(), o.scheduler_of(scheduler, ray_address)
    request = o.request(
        suite=suite,
        methods=methods,
        backbones=backbones,
        bits=bits,
        seeds=seeds,
        engines=engine,
        budget=budget,
        scope=scope,
        assignments=set_,
        set_files=set_file,
        data=data,
        weights=weights,
        store=store,
        config=config,
        plugins=plugin,
        device=device,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        batch_size=batch_size,
        oracle=oracle,
    )
    session = open_session(request)
    if dry_run:
        from harness.cli.plan import print_plan

        print_plan(session, console)
        return
    if tracking_uri is not None:
        o.refuse_unreachable(tracking_uri, session.suite.name)
    with o.stoppable(console, "Finished stages are kept: the same command runs what is missing."):
        try:
            outcome = run_session(session, made, console, allow_fp_mismatch=allow_fp_mismatch)
        finally:
            made.close()
        _report(session, request, outcome, o.tracking_uri(session, tracking_uri), console)
    if not outcome.all_good:
        raise typer.Exit(1)


def _report(session: Session, request: Request, outcome: RunOutcome, uri: str, console: Console) -> None:
    from harness.errors import HarnessError
    from harness.reporting.detection_pictures import save_detection_pictures
    from harness.reporting.leaderboard import board_of
    from results.renderers import render
    from results.tracking import Tracker, TrackingError

    print(render(board_of(outcome.records), "table", console=console))
    try:
        Tracker(uri).log(outcome.records, session.suite.name)
    except TrackingError as error:
        raise HarnessError(f"the records are safe in {session.store.root}, but {error}") from None
    pictures = save_detection_pictures(session)
    for note in outcome.notes:
        console.print(f"note: {note}", markup=False)
    console.print(
        f"{outcome.stages_run} stages run, {outcome.stages_cached} cached.\n"
        f"Written: {session.store.root} (MLflow: {uri})\n"
        f"{f'Pictures: {pictures}{chr(10)}' if pictures else ''}"
        f"Again, or as md, csv, json, latex, html: harness leaderboard {o.narrowing(request)}",
        markup=False,
        soft_wrap=True,
    )
