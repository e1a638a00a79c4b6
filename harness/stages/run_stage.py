"""Runs one stage, in whatever process the scheduler chose, and publishes its artifact.

Every stage reads its parents from the store and writes one artifact; tensors never travel otherwise. The work
itself is that of the stage's kind.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.stages.base import Artifact, RunContext, Stage, StageResult, Status
from harness.stages.data_guard import no_data
from harness.stages.facts import write_artifact
from harness.stages.kinds import get_kind, load_kinds
from harness.stages.progress import StageProgress, StageStopped
from harness.store import Store, open_store
from methods.registry import load_entry_points, load_plugin

_LONGEST_REASON = 500
"""Characters of an error that are kept: a row of a table has to hold them."""


def run_stage(stage: Stage, context: RunContext, on_report: Callable[[], None] = lambda: None) -> StageResult:
    """Make the stage's artifact unless it is there. Never raises on failure: the result says why.

    `on_report` is called after every report of a watched stage.
    """
    store = open_store(context.store).create()
    start = time.perf_counter()
    with store.claim(stage.key):
        if store.holds(stage.key):
            return StageResult(stage.key, "cached")
        try:
            artifact = _made(stage, context, store, on_report)
            seconds = time.perf_counter() - start
            head: dict[str, str | float] = {"kind": stage.kind, "label": stage.label, "seconds": seconds}
            write_artifact(store, stage.key, artifact.tensors, artifact.facts, **head)
        except StageStopped as stop:
            return StageResult(stage.key, "stopped", time.perf_counter() - start, str(stop))
        except Exception as error:  # whatever goes wrong in one trial becomes its row
            return _failed(stage, store, error, time.perf_counter() - start)
        finally:
            store.clear_progress(stage.key)
        store.clear_failure(stage.key)
        return StageResult(stage.key, "done", seconds)


def keep_failure(stage: Stage, store: Store, status: Status, reason: str) -> None:
    """Remember why a stage gave nothing; also for a stage whose process died and could not say so."""
    store.write_failure(stage.key, {"status": status, "reason": reason, "label": stage.label})
    store.clear_progress(stage.key)


def _made(stage: Stage, context: RunContext, store: Store, on_report: Callable[[], None]) -> Artifact:
    """What the stage's kind makes of it."""
    _prepare_process(context)
    store.clear_reports(stage.key)
    kind = get_kind(stage.kind)
    artifact = kind.function(stage, context, store, StageProgress(store, stage.key, on_report))
    if type(artifact.facts) is not kind.facts:
        raise TypeError(
            f"a stage of kind {kind.name} gives {kind.facts.__name__}, not {type(artifact.facts).__name__}"
        )
    return artifact


def _failed(stage: Stage, store: Store, error: Exception, seconds: float) -> StageResult:
    """Remember why the stage failed."""
    status: Status = "out_of_memory" if _is_out_of_memory(error) else "failed"
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_REASON]
    keep_failure(stage, store, status, reason)
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


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text
