"""`harness plan`: the stages of a suite, what is cached, and what the rest is expected to take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from harness.cli import options as o

if TYPE_CHECKING:
    from harness.planning.session import Session


def plan(
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
    stages: bool = typer.Option(False, "--stages", help="Also list every stage with its content key."),
) -> None:
    """Show a suite's stages, what is cached, and the expected cost; run nothing."""

    from harness.planning.session import open_session

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
        )
    )
    print_plan(session, o.console(), stages)


def print_plan(session: Session, console: Any, every_stage: bool = False) -> None:
    """The plan as a table: one row per kind of work, or per stage."""
    from rich.markup import escape
    from rich.table import Table

    from harness.execution.progress_view import TimeLeft

    missing = session.plan.missing(session.store)
    missing_keys = {stage.key for stage in missing}
    times = TimeLeft(missing, session.store.timings(), 1)
    table = Table(title=f"{session.suite.name}: {session.suite.description}", title_justify="left")
    if every_stage:
        for column in ("stage", "what", "key", "state", "expected"):
            table.add_column(column)
        for stage in session.plan.stages.values():
            state = "to run" if stage.key in missing_keys else "cached"
            expected = _seconds(times.expected(stage)) if state == "to run" else ""
            table.add_row(stage.kind, escape(stage.label), stage.key, state, expected)
    else:
        for column in ("stage", "in all", "cached", "to run", "expected"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        for kind in ("evaluate", "synthesize", "quantize"):
            stages = [stage for stage in session.plan.stages.values() if stage.kind == kind]
            open_ = [stage for stage in missing if stage.kind == kind]
            known = [times.expected(stage) for stage in open_]
            total = None if not open_ or None in known else sum(v for v in known if v is not None)
            cells = (str(len(stages)), str(len(stages) - len(open_)), str(len(open_)), _seconds(total))
            table.add_row(kind, *cells)
    console.print(table)
    console.print(
        f"{len(session.plan.trials)} trials on {len(session.suite.backbones)} backbones, seeds "
        f"{', '.join(map(str, session.suite.seeds))}, budget {session.suite.budget}. Expected times come "
        "from earlier runs on this store; '?' where it has none yet.",
    )
    for note in session.notes:
        console.print(f"note: {note}", markup=False)


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f} s"
