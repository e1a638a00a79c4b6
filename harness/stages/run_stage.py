"""Runs one stage, in whatever process the scheduler chose, and publishes its artifact.

Every stage reads its parents from the store and writes one artifact; tensors never travel otherwise. The work
itself is that of the stage's kind.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable

from harness.errors import one_line, printable
from harness.stages.base import Artifact, RunContext, Stage, StageResult, Status
from harness.stages.data_guard import no_data
from harness.stages.facts import write_artifact
from harness.stages.kinds import get_kind, is_made, load_kinds
from harness.stages.memory import is_out_of_memory, within_memory
from harness.stages.precision import EXACT, computing
from harness.stages.progress import StageProgress, StageStopped, StageTimedOut
from harness.stages.superseded import drop_what_led_to, is_superseded
from harness.store import Store, open_store
from methods.registry import load_entry_points, load_plugin

_LONGEST_REASON = 500
"""Characters of an error that are kept: a row of a table has to hold them."""
_LONGEST_TRACEBACK = 20_000
"""Characters of a traceback that are kept: its end, which says what happened."""


def run_stage(
    stage: Stage,
    context: RunContext,
    on_report: Callable[[], None] = lambda: None,
    limit: float | None = None,
) -> StageResult:
    """Make the stage's artifact unless it is there, or what it leads to is.

    Never raises on failure: the result says why.
    `on_report` is called after every report of a watched stage. A stage that is slower than `limit` seconds
    ends when it next says how far it is.
    """
    store = open_store(context.store).create()
    with store.claim(stage.key, {**dataclasses.asdict(context.claimant), "since": time.time()}):
        if is_made(stage, store) or is_superseded(stage, store):
            return StageResult(stage.key, "cached")
        start = time.perf_counter()  # waiting for another process is no part of it
        try:
            artifact = _made(stage, context, store, StageProgress(store, stage.key, on_report, limit))
            seconds = time.perf_counter() - start
            head: dict[str, str | float] = {"kind": stage.kind, "label": stage.label, "seconds": seconds}
            write_artifact(store, stage.key, artifact.tensors, artifact.facts, artifact.images, **head)
        except StageStopped as stop:
            return StageResult(stage.key, "stopped", time.perf_counter() - start, str(stop))
        except Exception as error:  # whatever goes wrong in one trial becomes its row
            return _failed(stage, store, error, time.perf_counter() - start)
        finally:
            store.clear_progress(stage.key)
        store.clear_failure(stage.key)
        drop_what_led_to(stage, store)
        return StageResult(stage.key, "done", seconds)


def keep_failure(stage: Stage, store: Store, status: Status, reason: str, trace: str = "") -> None:
    """Remember why a stage gave nothing; also for a stage whose process died and could not say so."""
    failure = {"status": status, "reason": reason, "label": stage.label}
    store.write_failure(stage.key, failure, trace[-_LONGEST_TRACEBACK:])
    store.clear_progress(stage.key)


def _made(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """What the stage's kind makes of it."""
    progress.begin()
    _prepare_process(context)
    kind = get_kind(stage.kind)

    def work(parts: int) -> Artifact:
        store.clear_reports(stage.key)
        with computing(stage.settings.get("precision", EXACT), context.device):
            return kind.function(stage, dataclasses.replace(context, parts=parts), store, progress)

    artifact = within_memory(work) if kind.divides(stage) else work(1)
    if type(artifact.facts) is not kind.facts:
        raise TypeError(
            f"a stage of kind {kind.name} gives {kind.facts.__name__}, not {type(artifact.facts).__name__}"
        )
    return artifact


def _failed(stage: Stage, store: Store, error: Exception, seconds: float) -> StageResult:
    """Remember why the stage failed."""
    status: Status = "out_of_memory" if is_out_of_memory(error) else "failed"
    name, said = type(error).__name__, one_line(error)
    says_all = said == name or isinstance(error, StageTimedOut)
    reason = (said if says_all else f"{name}: {said}")[:_LONGEST_REASON]
    keep_failure(stage, store, status, reason, printable("".join(traceback.format_exception(error))))
    return StageResult(stage.key, status, seconds, reason)


def _prepare_process(context: RunContext) -> None:
    """Threads, plug-ins and stage kinds: a worker process starts with none of them."""
    import torch

    torch.set_num_threads(context.threads)
    with no_data(context, programs=True):  # libraries may start some while they are imported
        load_entry_points()
        for plugin in context.plugins:
            load_plugin(plugin)
    for module in context.modules:
        load_kinds(module)
