"""`harness plan`: the stages of a suite, what is cached, and what the rest is expected to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.cli.options import with_options
from harness.cli.prediction import asked_of, print_prediction
from harness.cli.refusing import refuse_together
from harness.cli.terminal import output_console
from harness.errors import Faults
from harness.execution.time_left import TimeLeft
from harness.planning.request import Places, Request, Rows, option
from harness.planning.run_context import device_here
from harness.planning.session import Session, open_outline
from harness.stages.base import Stage
from results.figures import duration
from results.tables import Column, FittedTable

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class PlanOptions:
    """How the plan is shown."""

    panel: ClassVar[str] = "Output"
    stages: bool = option(False, "--stages", help="Also list every stage with its content key.")
    cluster: str | None = option(
        None,
        "--cluster",
        help="Predict the time on so many GPUs or CPUs, and the critical path: 8xH100, 16xcpu.",
        metavar="NxKIND",
    )
    stage_costs: tuple[str, ...] = option(
        (),
        "--stage-cost",
        help="With --cluster: what a stage of a kind takes, instead of stored timings: train=20m.",
        metavar="KIND=TIME",
    )


@with_options(Rows, Places, PlanOptions, required=("suite",))
def plan(rows: Rows, places: Places, options: PlanOptions) -> None:
    """Show a suite's stages, what is cached, and the expected cost, also on a cluster; run nothing."""
    faults, request, console = Faults(), Request(rows, places), output_console()
    if options.stage_costs and options.cluster is None:
        faults.append("--stage-cost: only with --cluster, whose time is predicted")
    with faults.gathered():
        asked = asked_of(options.cluster, options.stage_costs) if options.cluster is not None else None
    refuse_together(faults, lambda: open_outline(request))
    session = open_outline(request)
    print_plan(session, console, options.stages)
    if asked is not None:
        print_prediction(session, asked, console)


def print_plan(session: Session, console: Console, every_stage: bool = False) -> None:
    """Print the plan as a table, with one row per kind of work, or per stage."""
    missing = session.plan.missing(session.store)
    table = _stage_table if every_stage else _kind_table
    times = TimeLeft(missing, session.store.timings(), 1, _device_of(session))
    console.print(table(session, missing, times))
    lines = [
        f"{len(session.plan.trials)} trials on {len(session.suite.backbones)} backbones, seeds "
        f"{', '.join(map(str, session.suite.seeds))}, budget {session.suite.budget}. Expected times come "
        "from earlier runs on this store; '?' where it has none yet.",
        *(f"note: {note}" for note in session.notes),
    ]
    console.print("\n".join(lines), markup=False)


def _device_of(session: Session) -> str:
    """The device of which timings are looked up: this machine's where a scheduler is to decide."""
    device = session.context.device
    return device_here() if device == "auto" else device


def _stage_table(session: Session, missing: Sequence[Stage], times: TimeLeft) -> FittedTable:
    columns = (
        Column("stage"),
        Column("what", least=24),
        Column("key", number=True, left=True, leaves=1),
        Column("state"),
        Column("expected", number=True),
    )
    table = FittedTable(columns, _title(session))
    missing_keys = {stage.key for stage in missing}
    for stage in session.plan.stages.values():
        state = "to run" if stage.key in missing_keys else "cached"
        expected = _seconds(times.expected(stage)) if state == "to run" else ""
        table.add(stage.kind, stage.label, stage.key, state, expected)
    return table


def _kind_table(session: Session, missing: Sequence[Stage], times: TimeLeft) -> FittedTable:
    numbers = (Column(name, number=True) for name in ("in all", "cached", "to run", "expected"))
    table = FittedTable((Column("stage"), *numbers), _title(session))
    for kind in ("evaluate", "shard", "synthesize", "train", "quantize"):
        stages = [stage for stage in session.plan.stages.values() if stage.kind == kind]
        if kind in ("shard", "train") and not stages:
            continue
        open_ = [stage for stage in missing if stage.kind == kind]
        known = [times.expected(stage) for stage in open_]
        total = None if None in known else sum(v for v in known if v is not None)
        counts = (len(stages), len(stages) - len(open_), len(open_))
        table.add(kind, *map(str, counts), _seconds(total))
    return table


def _title(session: Session) -> str:
    return f"{session.suite.name}: {session.suite.description}"


def _seconds(value: float | None) -> str:
    return "?" if value is None else duration(value)
