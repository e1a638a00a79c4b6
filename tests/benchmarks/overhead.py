"""What the harness itself costs: trials that do nothing, and a suite whose every stage is cached."""

from __future__ import annotations

import io
import time
from pathlib import Path

from rich.console import Console

from harness.execution.run import run_session
from harness.execution.schedulers.base import Work
from harness.execution.schedulers.inline import InlineScheduler
from harness.execution.schedulers.ray_tasks import RayScheduler
from harness.planning.plan import stage_key
from harness.planning.request import Places, Request, Rows
from harness.planning.session import Session, open_session
from harness.reporting.leaderboard import board_of
from harness.stages.base import Artifact, RunContext, Stage
from harness.stages.cost import environment
from harness.stages.facts import Facts
from harness.stages.kinds import StageKind
from harness.stages.progress import StageProgress
from harness.store import Store, open_store
from results.renderers import render
from results.tracking import Tracker


def do_nothing(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """Makes an empty artifact."""
    return Artifact({}, Facts(environment=environment(context.device, context.threads)))


STAGE_KINDS = (StageKind("nothing", do_nothing, Facts),)


def no_op_trials_seconds(folder: Path, trials: int) -> float:
    """Seconds for `trials` x (synthesize, quantize, evaluate) that do nothing, Ray being up."""
    stages = [stage for index in range(trials) for stage in _trial(index)]
    open_store(folder).create()
    scheduler = RayScheduler()
    try:
        context = RunContext(store=folder, modules=("tests.benchmarks.overhead",))
        scheduler.run(Work([_stage(-1, {}), _stage(-2, {})], context, lambda event: None))
        start = time.perf_counter()
        results = scheduler.run(Work(stages, context, lambda event: None))
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
    images = _stage(index, {})
    student = _stage(index, {"images": images.key})
    return [images, student, _stage(index, {"student": student.key})]


def _stage(index: int, parents: dict[str, str]) -> Stage:
    settings = {"index": index}
    key = stage_key("nothing", settings, parents, "benchmark")
    return Stage("nothing", f"nothing {index}", settings, parents, key)
