"""Runs stages as plain Ray tasks on this machine or on a cluster. The only module that imports Ray.

A task gets the stage's settings and returns how it ended; artifacts go through the store, which on a
cluster has to be a folder that all nodes share.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from harness.errors import UsageError
from harness.execution.schedulers.base import OnEvent, OnTick, Progression, Refill, no_refill, no_tick
from harness.stages.base import RunContext, Stage, StageResult
from harness.stages.run_stage import run_stage

_OBJECT_STORE_BYTES = 200 * 2**20
_TICK_SECONDS = 0.2
_CRASH_RETRIES = 1
"""How often a stage is started again after its worker process died."""


class RayScheduler:
    """Starts a local Ray, or joins the cluster at `address`, once per suite."""

    def __init__(self, address: str | None = None) -> None:
        if address is None:
            # Loopback only: token authentication would write a file into the user's home.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray = ray
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address is None:
            settings |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        try:
            with _quiet_stderr():
                ray.init(address=address, **settings)
        except (ConnectionError, RuntimeError, OSError, ValueError) as error:
            where = f"at {address}" if address else "on this machine"
            raise UsageError(
                f"Ray could not be started {where}: {' '.join(str(error).split())[:300]}; "
                "use --scheduler inline to run without it"
            ) from None

    def run(
        self,
        stages: Sequence[Stage],
        context: RunContext,
        on_event: OnEvent,
        *,
        refill: Refill = no_refill,
        on_tick: OnTick = no_tick,
    ) -> dict[str, StageResult]:
        """See `Scheduler.run`. Raises UsageError when a stage asks for more than the cluster has."""
        self._refuse_impossible(context)
        task = self._ray.remote(_run_stage).options(
            num_cpus=context.threads, num_gpus=context.gpus_per_trial, max_retries=0
        )
        progression = Progression(stages, on_event, refill)
        running: dict[Any, Stage] = {}
        crashes: dict[str, int] = {}
        slots = self._slots(context)
        while True:
            while len(running) < slots and (stage := progression.start_next()) is not None:
                running[task.remote(stage, context)] = stage
            if not running:
                return progression.results
            done, _ = self._ray.wait(list(running), num_returns=1, timeout=_TICK_SECONDS)
            on_tick()
            for reference in done:
                stage = running.pop(reference)
                result = self._result(reference, stage)
                if result is None:
                    crashes[stage.key] = crashes.get(stage.key, 0) + 1
                    if crashes[stage.key] <= _CRASH_RETRIES:
                        running[task.remote(stage, context)] = stage
                        continue
                    result = StageResult(
                        stage.key, "failed", reason=f"the worker process died {crashes[stage.key]} times"
                    )
                progression.end(result)

    def close(self) -> None:
        """Stop the local Ray or leave the cluster; running tasks end."""
        with _quiet_stderr():
            self._ray.shutdown()

    def _result(self, reference: Any, stage: Stage) -> StageResult | None:
        """How the task ended; None when its worker died."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.OutOfMemoryError as error:
            return StageResult(stage.key, "out_of_memory", reason=str(error).splitlines()[0])
        except self._ray.exceptions.WorkerCrashedError:
            return None
        except self._ray.exceptions.RayError as error:
            return StageResult(stage.key, "failed", reason=" ".join(str(error).split())[:500])

    def _slots(self, context: RunContext) -> int:
        resources = self._ray.cluster_resources()
        slots = int(resources.get("CPU", 1) // context.threads)
        if context.gpus_per_trial:
            slots = min(slots, int(resources.get("GPU", 0) / context.gpus_per_trial))
        return max(1, slots)

    def _refuse_impossible(self, context: RunContext) -> None:
        """A request that no node can meet would wait for ever."""
        largest_cpu = max((n["Resources"].get("CPU", 0) for n in self._ray.nodes() if n["Alive"]), default=0)
        largest_gpu = max((n["Resources"].get("GPU", 0) for n in self._ray.nodes() if n["Alive"]), default=0)
        faults = []
        if context.threads > largest_cpu:
            faults.append(f"--cpus-per-trial {context.threads}: the largest node has {largest_cpu:.0f} CPUs")
        if context.gpus_per_trial > largest_gpu:
            faults.append(
                f"--gpus-per-trial {context.gpus_per_trial:g}: the largest node has {largest_gpu:.0f} GPUs"
            )
        if faults:
            raise UsageError.of(faults)


def _run_stage(stage: Stage, context: RunContext) -> StageResult:
    return run_stage(stage, context)


@contextlib.contextmanager
def _quiet_stderr() -> Any:
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
