"""`harness plan --cluster`: how long a plan takes on so many GPUs or CPUs, and which chain of stages decides.

Timings are those of this store on the same kind of device; of other devices nothing is concluded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backbones.names import shown, suggestion
from harness.errors import Faults, UsageError
from harness.execution.makespan import Makespan, makespan
from harness.execution.time_left import expectation
from harness.stages.base import Stage
from harness.stages.kinds import kind_names
from results.figures import duration
from results.tables import Column, FittedTable

if TYPE_CHECKING:
    from rich.console import Console

    from harness.planning.session import Session

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MOST_SLOTS = 100_000
_MOST_ROWS = 20
"""Stages of the critical path that are shown one by one."""


@dataclass(frozen=True)
class Asked:
    """On what a plan is to be run, and what stages are said to take."""

    cluster: str
    slots: int
    device: str
    """Whose timings are taken: those of `cuda` for any kind of GPU."""
    costs: dict[str, float]
    """Kind of stage -> seconds."""


def asked_of(cluster: str, costs: Sequence[str]) -> Asked:
    """The request of `8xH100` or `16xcpu`, and of costs such as `train=20m`; raises UsageError."""
    faults, given = Faults(), dict[str, float]()
    found = re.fullmatch(r"([0-9]{1,6})x([A-Za-z0-9-]+)", cluster)
    count = int(found[1]) if found else 0
    if not 1 <= count <= _MOST_SLOTS:
        faults.append(f"--cluster {shown(cluster)}: how many and of what, such as 8xH100 or 16xcpu")
    for cost in costs:
        with faults.gathered():
            kind, seconds = _cost(cost)
            given[kind] = seconds
    faults.raise_any()
    assert found
    return Asked(cluster, count, "cpu" if found[2].lower() == "cpu" else "cuda", given)


def print_prediction(session: Session, asked: Asked, console: Console) -> None:
    """Simulate what is missing of the plan; where nothing is known of a kind, say so and predict nothing."""
    missing = session.plan.missing(session.store)
    timings = session.store.timings().items()
    expected = expectation({n: s for n, s in timings if n.endswith(f":{asked.device}")}, asked.device)
    seconds = {stage.key: asked.costs.get(stage.kind, expected(stage)) for stage in missing}
    unknown = sorted({stage.kind for stage in missing if seconds[stage.key] is None})
    if unknown:
        console.print(
            f"No prediction for {asked.cluster}: this store has no timings on {asked.device} for the stages "
            f"{', '.join(unknown)}; give them, as in --stage-cost {unknown[0]}=20m",
            markup=False,
        )
        return
    known = {key: value for key, value in seconds.items() if value is not None}
    found = makespan(missing, known, asked.slots)
    if found.critical_path:
        console.print(_path_table(found, known))
    console.print("\n".join(_sentences(found, asked)), markup=False)


def _sentences(found: Makespan, asked: Asked) -> list[str]:
    sources = "from given costs and" if asked.costs else "from"
    return [
        f"On {asked.cluster}, {asked.slots} stages at once: {duration(found.seconds)} for what is missing. "
        f"No schedule takes less than {duration(found.critical_seconds)} (the critical path) or "
        f"{duration(found.shared_work)} (all work, {duration(found.work)}, shared by all).",
        f"Simulated {sources} timings of this store on any {asked.device} device; a stage that was not seen "
        "counts as the mean of its kind. Waiting for nodes and starting workers are not in it.",
    ]


def _path_table(found: Makespan, seconds: dict[str, float]) -> FittedTable:
    columns = (Column("stage"), Column("what", least=24), Column("expected", number=True))
    table = FittedTable(columns, f"critical path: {len(found.critical_path)} stages")
    shown_ones = found.critical_path[:_MOST_ROWS]
    for stage in shown_ones:
        table.add(stage.kind, stage.label, duration(seconds[stage.key]))
    rest: Sequence[Stage] = found.critical_path[_MOST_ROWS:]
    if rest:
        table.add("…", f"{len(rest)} more", duration(sum(seconds[stage.key] for stage in rest)))
    return table


def _cost(text: str) -> tuple[str, float]:
    """Kind and seconds of `train=20m`; without a unit the number is in seconds."""
    kind, _, amount = text.partition("=")
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)", amount)
    if not found:
        raise UsageError(f"--stage-cost {shown(text)}: a kind and its time, such as train=20m (s, m, h or d)")
    if kind not in kind_names():
        near = suggestion(kind, kind_names())
        raise UsageError(f"--stage-cost {shown(text)}: unknown kind of stage{near}")
    return kind, float(found[1]) * _UNITS[found[2] or "s"]
