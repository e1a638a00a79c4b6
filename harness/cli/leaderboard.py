"""`harness leaderboard`: the table of a suite from its records, in several formats."""

from __future__ import annotations

import sys

import typer

from harness.cli import options as o


def show_leaderboard(
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
    tracking_uri: o.TrackingOption = None,
    format: str = typer.Option("table", "--format", "-f", help="table, md, csv, json, latex or html."),
    output: str | None = typer.Option(None, "--output", "-o", help="Write to this file instead."),
    published: bool = typer.Option(True, help="Show published numbers beside the measured ones."),
    oracle: o.OracleOption = False,
) -> None:
    """Show a suite's leaderboard from its records; runs nothing."""
    from pathlib import Path

    from rich.console import Console

    from harness.errors import UsageError
    from harness.planning.session import open_session
    from harness.reporting.leaderboard import board_of
    from harness.reporting.records import records_of
    from results.renderers import FORMATS, render
    from results.tracking import Tracker, TrackingError

    if format not in FORMATS:
        raise UsageError(f"--format {format}: one of {', '.join(FORMATS)}")
    session = open_session(
        o.request(
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
            oracle=oracle,
        )
    )
    if tracking_uri is None and not session.store.root.is_dir():
        raise UsageError(f"no store at {session.store.root}: give --store DIR, or run the suite first")
    records = records_of(session.plan, session.store)
    try:
        tracker = Tracker(o.tracking_uri(session, tracking_uri))
        if tracking_uri is None:
            tracker.log(records, session.suite.name)  # refills a database that was lost
        tracked = {record.trial: record for record in tracker.load(session.suite.name)}
    except TrackingError as error:
        raise UsageError(str(error)) from None
    shown = [tracked.get(record.trial, record) if record.status != "ok" else record for record in records]
    frame = board_of(shown, published=published)
    if output is not None:
        Path(output).write_text(render(frame, format, console=Console(width=140)), encoding="utf-8")
        return
    sys.stdout.write(f"{render(frame, format, console=o.console()).rstrip()}\n")
