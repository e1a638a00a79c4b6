"""Runs stages as plain Ray tasks on this machine or on a cluster.

A task gets the stage's settings and returns how it ended; artifacts go through the store, which on a
cluster has to be a folder that all nodes share.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from harness.errors import UsageError, one_line
from harness.execution.schedulers.base import Progression, Work
from harness.execution.schedulers.local_ray import LocalRay, project_root, working_from
from harness.stages.base import RunContext, Stage, StageResult
from harness.stages.run_stage import keep_failure, run_stage
from harness.store import open_store

if TYPE_CHECKING:
    from ray import ObjectRef

    Reference = ObjectRef[StageResult]

_TICK_SECONDS = 0.2
_CRASH_RETRIES = 1
"""How often a stage is started again after its worker process died, or its node was lost."""
_LONGEST_REASON = 500


class RayScheduler:
    """Starts a Ray that nobody else can use, or joins the cluster at `address`, once per suite."""

    def __init__(self, address: str | None = None) -> None:
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._local = LocalRay() if address is None else None
        try:
            with _quiet_stderr():
                self._start(address)
        except Exception as error:  # a start that fails raises many kinds, a bare Exception among them
            where = f"at {address}" if address else "on this machine"
            raise UsageError(
                f"Ray could not be started {where}: {one_line(error)[:300]}; "
                "use --scheduler inline to run without it"
            ) from None

    def _start(self, address: str | None) -> None:
        if self._local is not None:
            self._local.start()
        import ray

        self._ray: ModuleType = ray  # Ray's own types are partial
        if self._local is None:
            with working_from(project_root()):
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)

    def run(self, work: Work) -> dict[str, StageResult]:
        """See `Scheduler.run`. Raises UsageError when a stage asks for more than the cluster has."""
        self._refuse_impossible(work.context)
        slots = self._slots(work.context)
        folder = None if self._local is None else Path.cwd()
        progression, tasks = Progression(work), _Tasks(self._ray, work.context, folder)
        while True:
            while len(tasks) < slots and (stage := progression.start_next()) is not None:
                tasks.start(stage)
            if not tasks:
                return progression.results
            ended = tasks.wait()
            work.on_tick()
            for result in ended:
                progression.end(result)

    def close(self) -> None:
        """Stop the local Ray or leave the cluster; running tasks end."""
        with _quiet_stderr():
            if self._local is not None:
                self._local.stop()
            else:
                self._ray.shutdown()

    def _slots(self, context: RunContext) -> int:
        resources = self._ray.cluster_resources()
        slots = int(resources.get("CPU", 1) // context.threads)
        if context.gpus_per_trial:
            slots = min(slots, int(resources.get("GPU", 0) / context.gpus_per_trial))
        return max(1, slots)

    def _refuse_impossible(self, context: RunContext) -> None:
        """A request that no node can meet would wait for ever."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        largest_cpu = max((resources.get("CPU", 0) for resources in nodes), default=0)
        largest_gpu = max((resources.get("GPU", 0) for resources in nodes), default=0)
        faults = []
        if context.threads > largest_cpu:
            faults.append(f"--cpus-per-trial {context.threads}: the largest node has {largest_cpu:.0f} CPUs")
        if context.gpus_per_trial > largest_gpu:
            faults.append(
                f"--gpus-per-trial {context.gpus_per_trial:g}: the largest node has {largest_gpu:.0f} GPUs"
            )
        if faults:
            raise UsageError.of(faults)


class _Tasks:
    """The Ray tasks that are under way, each with its stage."""

    def __init__(self, ray: ModuleType, context: RunContext, folder: Path | None) -> None:
        self._ray = ray
        self._context = context
        self._folder = folder
        self._task = ray.remote(
            num_cpus=context.threads, num_gpus=context.gpus_per_trial or None, max_retries=0
        )(_run_stage)  # not `.options(...)`: only here does num_gpus give each stage a process of its own
        self._stages: dict[Reference, Stage] = {}
        self._crashes: Counter[str] = Counter()
        self._lost = (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.LocalRayletDiedError,
            ray.exceptions.ObjectLostError,
        )

    def __len__(self) -> int:
        return len(self._stages)

    def start(self, stage: Stage) -> None:
        """Hand a stage to a worker."""
        self._stages[self._task.remote(stage, self._context, self._folder)] = stage

    def wait(self) -> list[StageResult]:
        """The results of a tick's time; a stage whose worker died is started again and has none yet."""
        done, _ = self._ray.wait(list(self._stages), num_returns=1, timeout=_TICK_SECONDS)
        results = [self._ended(reference, self._stages.pop(reference)) for reference in done]
        return [result for result in results if result is not None]

    def _ended(self, reference: Reference, stage: Stage) -> StageResult | None:
        """How the task ended; None when its worker died and another one has the stage now."""
        try:
            result: StageResult = self._ray.get(reference)
            return result
        except self._ray.exceptions.OutOfMemoryError as error:
            return self._failed(stage, "out_of_memory", one_line(error, before="\n"))
        except self._lost as error:
            return self._crashed(stage, error)
        except self._ray.exceptions.RayError as error:
            return self._failed(stage, "failed", one_line(error))

    def _crashed(self, stage: Stage, error: Exception) -> StageResult | None:
        self._crashes[stage.key] += 1
        if self._crashes[stage.key] <= _CRASH_RETRIES:
            self.start(stage)
            return None
        times = self._crashes[stage.key]
        if isinstance(error, self._ray.exceptions.WorkerCrashedError):
            return self._failed(stage, "failed", f"the worker process died {times} times")
        return self._failed(stage, "failed", f"its node was lost {times} times: {one_line(error)}")

    def _failed(self, stage: Stage, status: Literal["failed", "out_of_memory"], reason: str) -> StageResult:
        """Keep the failure in the store, as the dead process could not."""
        reason = reason[:_LONGEST_REASON]
        keep_failure(stage, open_store(self._context.store), status, reason)
        return StageResult(stage.key, status, reason=reason)


def _run_stage(stage: Stage, context: RunContext, folder: Path | None) -> StageResult:
    if folder is not None:
        os.chdir(folder)
    return run_stage(stage, context)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep the raylet's start and stop messages, written straight to descriptor 2, off the terminal."""
    saved = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
