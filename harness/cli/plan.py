"""`harness plan`: the stages of a suite, what is cached, and what the rest is expected to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.cli.options import with_options
from harness.cli.terminal import output_console
from harness.execution.progress_view import TimeLeft
from harness.planning.request import Places, Request, Rows, option
from harness.planning.session import Session, open_outline
from harness.stages.base import Stage

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True)
class PlanOptions:
    """How the plan is shown."""

    panel: ClassVar[str] = "Output"
    stages: bool = option(False, "--stages", help="Also list every stage with its content key.")


@with_options(Rows, Places, PlanOptions, required=("suite",))
def plan(rows: Rows, places: Places, options: PlanOptions) -> None:
    """Show a suite's stages, what is cached, and the expected cost; run nothing."""
    print_plan(open_outline(Request(rows, places)), output_console(), options.stages)


def print_plan(session: Session, console: Console, every_stage: bool = False) -> None:
    """Print the plan as a table, with one row per kind of work, or per stage."""
    missing = session.plan.missing(session.store)
    table = _stage_table if every_stage else _kind_table
    console.print(table(session, missing, TimeLeft(missing, session.store.timings(), 1)))
    console.print(
        f"{len(session.plan.trials)} trials on {len(session.suite.backbones)} backbones, seeds "
        f"{', '.join(map(str, session.suite.seeds))}, budget {session.suite.budget}. Expected times come "
        "from earlier runs on this store; '?' where it has none yet.",
    )
    for note in session.notes:
        console.print(f"note: {note}", markup=False)


def _stage_table(session: Session, missing: Sequence[Stage], times: TimeLeft) -> Table:
    from rich.markup import escape

    table = _titled(session)
    for column in ("stage", "what", "key", "state", "expected"):
        table.add_column(column)
    missing_keys = {stage.key for stage in missing}
    for stage in session.plan.stages.values():
        state = "to run" if stage.key in missing_keys else "cached"
        expected = _seconds(times.expected(stage)) if state == "to run" else ""
        table.add_row(stage.kind, escape(stage.label), stage.key, state, expected)
    return table


def _kind_table(session: Session, missing: Sequence[Stage], times: TimeLeft) -> Table:
    table = _titled(session)
    for column in ("stage", "in all", "cached", "to run", "expected"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for kind in ("evaluate", "synthesize", "quantize"):
        stages = [stage for stage in session.plan.stages.values() if stage.kind == kind]
        open_ = [stage for stage in missing if stage.kind == kind]
        known = [times.expected(stage) for stage in open_]
        total = None if not open_ or None in known else sum(v for v in known if v is not None)
        counts = (len(stages), len(stages) - len(open_), len(open_))
        table.add_row(kind, *map(str, counts), _seconds(total))
    return table


def _titled(session: Session) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = f"{session.suite.name}: {session.suite.description}"
    return Table(title=Text(title, style="table.title"), title_justify="left")


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f} s"
