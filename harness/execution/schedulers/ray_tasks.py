"""Runs stages as plain Ray tasks on this machine or on a cluster.

A task gets the stage's settings and returns how it ended; artifacts go through the store, which on a
cluster has to be a folder that all nodes share.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from harness.errors import RunCutShort, UsageError, one_line
from harness.execution.schedulers.base import Progression, Work
from harness.execution.schedulers.local_ray import LocalRay, project_root, working_from
from harness.execution.time_limits import Overdue
from harness.stages.base import RunContext, Stage, StageResult
from harness.stages.progress import timed_out
from harness.stages.run_stage import keep_failure, run_stage
from harness.store import open_store

if TYPE_CHECKING:
    from ray import ObjectRef

    Reference = ObjectRef[StageResult]

_TICK_SECONDS = 0.2
_CRASH_RETRIES = 1
"""How often a stage is started again after its worker process died, or its node was lost."""
_RESTARTS = 1
"""How often a local Ray that was lost is started anew."""
_LONGEST_REASON = 500


class _RayLost(Exception):
    """The Ray that this process speaks to is gone, with every task."""


class RayScheduler:
    """Starts a Ray that nobody else can use, or joins the cluster at `address`, once per suite."""

    def __init__(self, address: str | None = None) -> None:
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._local = LocalRay() if address is None else None
        self._restarts = 0
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
        with _handlers_kept():
            if self._local is not None:
                self._local.start()
            import ray

            self._ray: ModuleType = ray  # Ray's own types are partial
            if self._local is None:
                with working_from(project_root()):
                    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        _keep_off_the_terminal(ray)

    def run(self, work: Work) -> dict[str, StageResult]:
        """See `Scheduler.run`. Raises UsageError when a stage asks for more than the cluster has.

        A local Ray that is lost is started again, once; what ran on it runs again. Raises RunCutShort when it
        is lost once more, or a cluster is.
        """
        self._refuse_impossible(work.context)
        slots = self._slots(work.context)
        progression, tasks = Progression(work), self._tasks(work.context)
        while True:
            while len(tasks) < slots and (stage := progression.start_next()) is not None:
                tasks.start(stage)
            if not tasks:
                return progression.results
            try:
                ended = tasks.wait()
            except _RayLost as lost:
                tasks = self._start_again(str(lost), tasks, work)
                continue
            work.on_tick()
            for result in ended:
                progression.end(result)

    def _tasks(self, context: RunContext) -> _Tasks:
        folder = None if self._local is None else Path.cwd()
        return _Tasks(self._ray, context, folder, self._refuse_lost)

    def _refuse_lost(self) -> None:
        """Raise _RayLost when the local Ray has lost a process without which it does not work."""
        if self._local is not None and (name := self._local.lost()):
            raise _RayLost(f"Ray on this machine was lost (its {name} ended)")

    def _start_again(self, lost: str, tasks: _Tasks, work: Work) -> _Tasks:
        """A new local Ray that runs the stages of the lost one."""
        if self._local is None:
            raise RunCutShort(lost)
        if self._restarts == _RESTARTS:
            raise RunCutShort(f"{lost} again, after it had been started anew")
        self._restarts += 1
        stages = tasks.stages
        under_way = "1 stage" if len(stages) == 1 else f"{len(stages)} stages"
        work.on_notice(f"{lost}; it is started anew, and what was under way ({under_way}) runs again")
        try:
            with _quiet_stderr():
                self._local.stop()
                self._start(None)
        except Exception as error:  # as in __init__
            raise RunCutShort(f"{lost} and could not be started anew: {one_line(error)[:300]}") from None
        tasks = self._tasks(work.context)
        for stage in stages:
            tasks.start(stage)
        return tasks

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

    def __init__(
        self, ray: ModuleType, context: RunContext, folder: Path | None, refuse_lost: Callable[[], None]
    ) -> None:
        self._ray = ray
        self._context = context
        self._folder = folder
        self._refuse_lost = refuse_lost
        self._task = ray.remote(
            num_cpus=context.threads, num_gpus=context.gpus_per_trial or None, max_retries=0
        )(_run_stage)  # not `.options(...)`: only here does num_gpus give each stage a process of its own
        self._stages: dict[Reference, Stage] = {}
        self._overdue: Overdue[Reference] = Overdue(context)
        self._crashes: Counter[str] = Counter()
        self._lost = (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.ObjectLostError,
        )

    def __len__(self) -> int:
        return len(self._stages)

    @property
    def stages(self) -> list[Stage]:
        """The stages under way."""
        return list(self._stages.values())

    def start(self, stage: Stage) -> None:
        """Hand a stage to a worker."""
        self._stages[self._task.remote(stage, self._context, self._folder)] = stage

    def wait(self) -> list[StageResult]:
        """The results of a tick's time; a stage whose worker died is started again and has none yet.

        Raises _RayLost when Ray is gone; what was under way still is then.
        """
        self._refuse_lost()
        for reference in self._overdue.among(self._stages):
            self._ray.cancel(reference, force=True)
        done, _ = self._ray.wait(list(self._stages), num_returns=1, timeout=_TICK_SECONDS)
        results = []
        for reference in done:
            result = self._ended(reference, self._stages[reference])
            del self._stages[reference]
            self._overdue.forget(reference)
            results += [] if result is None else [result]
        return results

    def _ended(self, reference: Reference, stage: Stage) -> StageResult | None:
        """How the task ended; None when its worker died and another one has the stage now."""
        try:
            result: StageResult = self._ray.get(reference)
            return result
        except self._ray.exceptions.OutOfMemoryError as error:
            return self._failed(stage, "out_of_memory", one_line(error, before="\n"))
        except self._ray.exceptions.LocalRayletDiedError:
            raise _RayLost("the Ray node of this process was lost") from None
        except self._ray.exceptions.RayError as error:
            return self._ended_by(error, reference, stage)

    def _ended_by(self, error: Exception, reference: Reference, stage: Stage) -> StageResult | None:
        if (limit := self._overdue.limit_passed(reference)) is not None:
            return self._failed(stage, "failed", timed_out(limit, limit))
        if isinstance(error, self._lost):
            self._refuse_lost()  # a Ray that goes down takes its workers first
            return self._crashed(stage, error)
        self._refuse_lost()
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


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep this process's own answer to SIGTERM: `ray.init` installs another."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _keep_off_the_terminal(ray: ModuleType) -> None:
    """Ray prints pages about a raylet or a node that died to standard output; a run says it in a line."""
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
