"""What the driver itself costs as a suite grows, in CPU time: planning, running, waiting, tracking, ranking.

Each size has a process of its own, so that its memory is its own too. On a busy machine CPU time grows as
well, though less than wall-clock: what importing torch takes here and now stands beside it.
"""

from __future__ import annotations

import dataclasses
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.execution.run import RunOutcome, run_session
from harness.planning.session import Session
from harness.reporting.leaderboard import board_of
from results.database import local_uri
from results.record import Record
from results.tracking import Tracker
from tests.benchmarks.simulation import SimulatedScheduler, plan_session

_HELD_SECONDS = 8.0
_MOST_TRACKED = 500
"""Records that are logged at a size: the price of one is what counts."""


@dataclass
class Costs:
    """CPU seconds of one size, by what was done."""

    stages: int
    records: int = 0
    plan_seconds: float = 0.0
    plan_megabytes: float = 0.0
    driver_milliseconds_per_stage: float = 0.0
    waiting_percent: float = 0.0
    cached_milliseconds_per_stage: float = 0.0
    new_record_milliseconds: float = 0.0
    unchanged_record_milliseconds: float = 0.0
    leaderboard_seconds: float = 0.0


_ROWS = {
    "plan_seconds": ("plan, s", "60 s at 100,000"),
    "plan_megabytes": ("plan, memory beyond imports, MB", "2,000 MB at 100,000"),
    "driver_milliseconds_per_stage": ("driver, ms per stage", "at most 5 ms"),
    "waiting_percent": ("driver that waits, % of a core", "at most 10 %"),
    "cached_milliseconds_per_stage": ("a finished run again, ms per stage", ""),
    "new_record_milliseconds": (f"MLflow, ms per new record (of {_MOST_TRACKED:,})", "20 ms"),
    "unchanged_record_milliseconds": ("MLflow, ms per unchanged record", "1 ms"),
    "records": ("records", ""),
    "leaderboard_seconds": ("leaderboard of them, s", "10 s for 20,000"),
}


def costs_of(stages: int) -> Costs:
    """Plan, run, run again, track, track again and rank a suite of about so many stages."""
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as name:
        folder = Path(name)
        before = _peak_megabytes()
        with _cpu() as plan:
            session = plan_session(stages, folder / "store")
        costs = Costs(len(session.plan.stages), plan_seconds=plan.seconds)
        costs.plan_megabytes = _peak_megabytes() - before
        scheduler = SimulatedScheduler(_HELD_SECONDS)
        with _cpu() as run:
            outcome = _run(session, scheduler)
        held = scheduler.held_share * _HELD_SECONDS
        own = run.seconds - scheduler.planting_seconds - held
        costs.driver_milliseconds_per_stage = 1000 * own / costs.stages
        costs.waiting_percent = 100 * scheduler.held_share
        with _cpu() as again:
            _run(session, SimulatedScheduler())
        costs.cached_milliseconds_per_stage = 1000 * again.seconds / costs.stages
        costs.records = len(outcome.records)
        _track(costs, outcome.records[:_MOST_TRACKED], folder)
        with _cpu() as board:
            board_of(outcome.records)
        costs.leaderboard_seconds = board.seconds
        return costs


def _run(session: Session, scheduler: SimulatedScheduler) -> RunOutcome:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    outcome = run_session(session, scheduler, console)
    assert outcome.all_good
    return outcome


def _track(costs: Costs, records: tuple[Record, ...], folder: Path) -> None:
    Tracker(local_uri(folder)).log([], "simulated")  # imports MLflow, makes the tables
    with _cpu() as new:
        Tracker(local_uri(folder)).log(records, "simulated")
    with _cpu() as unchanged:
        Tracker(local_uri(folder)).log(records, "simulated")
    costs.new_record_milliseconds = 1000 * new.seconds / len(records)
    costs.unchanged_record_milliseconds = 1000 * unchanged.seconds / len(records)


@dataclass
class _Measured:
    seconds: float = 0.0


@contextmanager
def _cpu() -> Iterator[_Measured]:
    measured, start = _Measured(), time.process_time()
    try:
        yield measured
    finally:
        measured.seconds = time.process_time() - start


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(sizes: Sequence[int]) -> Table:
    """The costs of suites of these sizes, a column each."""
    columns = [_in_a_process(size) for size in sizes]
    made = Table(title=f"the driver, in CPU time (importing torch takes {_torch_seconds():.1f} s)")
    for name in ("what", *(f"{costs.stages:,} stages" for costs in columns), "aim"):
        made.add_column(name, justify="left" if name in ("what", "aim") else "right")
    for name, (what, aim) in _ROWS.items():
        made.add_row(what, *(f"{getattr(costs, name):,.2f}" for costs in columns), aim)
    return made


def _in_a_process(stages: int) -> Costs:
    command = [sys.executable, "-m", "tests.benchmarks.scale", str(stages)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Costs(**json.loads(said.splitlines()[-1]))


def _torch_seconds() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    plan_session(100, Path("unused"))  # imports are no cost of a suite
    print(json.dumps(dataclasses.asdict(costs_of(int(sys.argv[1])))))
