"""What the harness itself costs: trials that do nothing, and a suite whose every stage is cached."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.execution.run import run_session
from harness.execution.schedulers.base import Work
from harness.execution.schedulers.inline import InlineScheduler
from harness.execution.schedulers.ray_tasks import RayScheduler
from harness.planning.plan import stage_key
from harness.planning.request import Places, Request, Rows
from harness.planning.session import Session, open_session
from harness.reporting.leaderboard import board_of
from harness.stages.base import RunContext, Stage
from harness.store.artifacts import Store
from results.renderers import render
from results.tracking import Tracker


def do_nothing(stage: Stage, context: RunContext, store: Store, progress: Any) -> Any:
    """A stage function that makes an empty artifact."""
    return {}, {}


def no_op_trials_seconds(folder: Path, trials: int) -> float:
    """Seconds for `trials` x (synthesize, quantize, evaluate) that do nothing, Ray being up."""
    stages = [stage for index in range(trials) for stage in _trial(index)]
    Store(folder).create()
    scheduler = RayScheduler()
    try:
        warm_up = [_stage("synthesize", -1, {}), _stage("synthesize", -2, {})]
        scheduler.run(Work(warm_up, RunContext(store=folder), lambda event: None))
        start = time.perf_counter()
        results = scheduler.run(Work(stages, RunContext(store=folder), lambda event: None))
        seconds = time.perf_counter() - start
    finally:
        scheduler.close()
    assert {result.status for result in results.values()} == {"done"}
    return seconds


def cached_suite_seconds(folder: Path, repeats: int) -> list[float]:
    """Seconds of `harness run` on a suite that ran before, imports done: plan, records, MLflow, table."""
    request = Request(Rows(suite="digits_w4a4", budget="smoke"), Places(store=str(folder)))
    _run(request)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        _run(request)
        seconds.append(time.perf_counter() - start)
    return seconds


def _run(request: Request) -> Session:
    session = open_session(request)
    console = Console(file=io.StringIO())
    outcome = run_session(session, InlineScheduler(), console)
    Tracker(f"sqlite:///{session.store.root / 'mlflow.db'}").log(outcome.records, session.suite.name)
    console.print(render(board_of(outcome.records), "table", console=console))
    return session


def _trial(index: int) -> list[Stage]:
    images = _stage("synthesize", index, {})
    student = _stage("quantize", index, {"images": images.key})
    return [images, student, _stage("evaluate", index, {"student": student.key})]


def _stage(kind: Any, index: int, parents: dict[str, str]) -> Stage:
    settings = {"index": index}
    key = stage_key(kind, settings, parents, "benchmark")
    return Stage(
        kind, f"{kind} {index}", settings, parents, key, function="tests.benchmarks.overhead:do_nothing"
    )
