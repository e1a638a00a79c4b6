"""Workers of a Ray, each a process with CPUs and a GPU of its own for as long as it lives, and what they run.

A worker is a Ray actor: its GPU never changes, and torch is imported once for all stages that it runs. One is
asked for per stage that waits, which is the demand that an autoscaler sees; a stage is given to whichever
worker is there first, and workers that nothing waits for are let go.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import RunCutShort, one_line
from harness.execution.schedulers.inspection import is_up
from harness.execution.schedulers.shipping import runtime_env
from harness.execution.time_limits import Overdue
from harness.stages.base import RunContext, Stage, StageResult
from harness.stages.progress import timed_out
from harness.stages.run_stage import keep_failure, run_stage
from harness.store import open_store

if TYPE_CHECKING:
    from ray import ObjectRef

    Reference = ObjectRef[Any]

_TICK_SECONDS = 0.2
_CRASH_RETRIES = 1
"""How often a stage is started again after its worker process died."""
_NODE_RETRIES = 5
"""How often after its node was lost, which preempted nodes are without a fault of the stage."""
_IDLE_SECONDS = 10.0
"""How long a worker is kept that nothing waits for: a stage that is ready soon finds torch imported."""
_FALSE_STARTS = 3
"""Workers in a row that end before they begin, after which none is expected to."""
_LONGEST_REASON = 500


class RayLost(Exception):
    """The Ray that this process speaks to is gone, with every worker."""


@dataclass(frozen=True)
class Holding:
    """What a worker holds as long as it lives."""

    threads: int
    gpus: float = 0.0
    accelerator: str = ""
    project: Path | None = None
    """Where it imports the project, if not what its node has."""

    @property
    def options(self) -> dict[str, Any]:
        """What Ray is asked for."""
        kind = {"accelerator_type": self.accelerator} if self.accelerator else {}
        return {"num_cpus": self.threads, "num_gpus": self.gpus or None, **kind}


@dataclass
class _Worker:
    holding: Holding
    actor: Any
    node: str = ""
    """Id of its node, once it is up."""
    idle_since: float = 0.0


class _StageRunner:
    """What a worker's process does."""

    def __init__(self, folder: Path | None) -> None:
        if folder is not None:
            os.chdir(folder)

    def node(self) -> str:
        """Id of the node; asked for to know that the process is up."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def run(self, stage: Stage, context: RunContext) -> StageResult:
        """Run the stage; memory that torch keeps for the next one goes back to a GPU that is shared."""
        result = run_stage(stage, context)
        if 0 < context.gpus_per_trial < 1:
            import torch

            torch.cuda.empty_cache()
        return result


class Crew:
    """Hires workers, gives them the stages of one run after the other, and tells how these ended."""

    def __init__(self, ray: ModuleType, folder: Path | None, refuse_lost: Callable[[], None]) -> None:
        """Workers start in `folder`; `refuse_lost` raises RayLost when Ray is gone."""
        self._ray = ray
        self._folder = folder
        self._refuse_lost = refuse_lost
        self._coming: dict[Reference, _Worker] = {}
        self._idle: list[_Worker] = []
        self._busy: dict[Reference, tuple[_Worker, Stage]] = {}
        self._false_starts = 0

    def serve(self, context: RunContext, holding: Callable[[Stage], Holding]) -> None:
        """Begin a run; `holding` says what a stage's worker has to hold. Idle workers serve on.

        Those that an aborted run left at work are let go: what they end with is nothing to this one.
        """
        for worker, _ in self._busy.values():
            self._ray.kill(worker.actor)
        self._busy = {}
        self._context = context
        self._holding = holding
        self._overdue: Overdue[Reference] = Overdue(context)
        self._crashes: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._large: set[str] = set()
        """Stages whose memory ran out on a part of a GPU: they get a whole one."""

    @property
    def stages(self) -> list[Stage]:
        """The stages under way."""
        return [stage for _, stage in self._busy.values()]

    def give(self, waiting: Sequence[Stage]) -> list[Stage]:
        """Give stages, first ones first, to the workers that are free; those given.

        For the others a worker each is asked for; workers that none of them can use are let go.
        """
        given = []
        demand: Counter[Holding] = Counter()
        for stage in waiting:
            holding = self._held_by(stage)
            worker = next((one for one in self._idle if one.holding == holding), None)
            if worker is None:
                demand[holding] += 1
                continue
            self._idle.remove(worker)
            context = _on(self._context, holding)
            self._busy[worker.actor.run.remote(stage, context)] = (worker, stage)
            given.append(stage)
        self._hire(demand)
        return given

    def wait(self) -> tuple[list[StageResult], list[Stage]]:
        """What ended within a tick's time, and the stages that have to be given again: their worker died.

        Raises RayLost when Ray is gone; what was under way still is then. Raises RunCutShort when workers
        end again and again before they begin.
        """
        self._refuse_lost()
        for reference in self._overdue.among({ref: stage for ref, (_, stage) in self._busy.items()}):
            self._ray.kill(self._busy[reference][0].actor)
        pending = [*self._busy, *self._coming]
        if not pending:
            time.sleep(_TICK_SECONDS)
            return [], []
        done, _ = self._ray.wait(pending, num_returns=1, timeout=_TICK_SECONDS)
        results, again = [], []
        for reference in done:
            if reference in self._coming:
                self._welcome(reference)
                continue
            stage = self._busy[reference][1]
            result = self._ended(reference, stage)
            del self._busy[reference]
            self._overdue.forget(reference)
            if result is None:
                again.append(stage)
            else:
                results.append(result)
        return results, again

    def dismiss(self) -> None:
        """Let all workers go."""
        for worker in (*self._idle, *self._coming.values(), *(worker for worker, _ in self._busy.values())):
            self._ray.kill(worker.actor)
        self._idle, self._coming, self._busy = [], {}, {}

    def _hire(self, demand: Mapping[Holding, int]) -> None:
        """Have as many workers coming as stages wait for one, and no idle one in their way."""
        coming = Counter(worker.holding for worker in self._coming.values())
        for reference, worker in reversed(list(self._coming.items())):
            if coming[worker.holding] > demand.get(worker.holding, 0):
                coming[worker.holding] -= 1
                del self._coming[reference]
                self._ray.kill(worker.actor)
        now = time.monotonic()
        for worker in list(self._idle):
            if demand or now - worker.idle_since > _IDLE_SECONDS:
                self._idle.remove(worker)
                self._ray.kill(worker.actor)
        for holding, count in demand.items():
            for _ in range(count - coming[holding]):
                self._ask_for(holding)

    def _ask_for(self, holding: Holding) -> None:
        runner = self._ray.remote(**holding.options, **runtime_env(self._context), max_restarts=0)(
            _StageRunner
        )
        actor = runner.remote(self._folder)
        self._coming[actor.node.remote()] = _Worker(holding, actor)

    def _welcome(self, reference: Reference) -> None:
        """A worker is up, or has ended before that."""
        worker = self._coming.pop(reference)
        try:
            worker.node = self._ray.get(reference)
        except self._ray.exceptions.LocalRayletDiedError:
            raise RayLost("the Ray node of this process was lost") from None
        except self._ray.exceptions.RayError as error:
            self._refuse_lost()
            if not self._is_about_a_lost_node(error):
                self._false_starts += 1
            if self._false_starts >= _FALSE_STARTS:
                raise RunCutShort(f"Ray's workers end before they begin: {one_line(error)[:300]}") from None
            return
        self._false_starts = 0
        self._rest(worker)

    def _is_about_a_lost_node(self, error: Exception) -> bool:
        """Whether the message names a node that is gone: one that ends takes all that were to begin there."""
        said = str(error)
        return any(node["NodeID"] in said for node in self._ray.nodes() if not node["Alive"])

    def _rest(self, worker: _Worker) -> None:
        worker.idle_since = time.monotonic()
        self._idle.append(worker)

    def _ended(self, reference: Reference, stage: Stage) -> StageResult | None:
        """How the stage ended; None where another worker shall have it: this died, or had too little GPU."""
        worker = self._busy[reference][0]
        errors = self._ray.exceptions
        try:
            result: StageResult = self._ray.get(reference)
        except errors.OutOfMemoryError as error:
            return self._failed(stage, "out_of_memory", one_line(error, before="\n"))
        except errors.LocalRayletDiedError:
            raise RayLost("the Ray node of this process was lost") from None
        except errors.RayError as error:
            return self._ended_by(error, reference, worker, stage)
        if not worker.holding.gpus or result.status not in ("failed", "out_of_memory"):
            self._rest(worker)
            return result
        self._ray.kill(worker.actor)  # an error of CUDA stays with the process
        if result.status == "out_of_memory" and worker.holding.gpus < 1:
            self._large.add(stage.key)
            return None
        return result

    def _held_by(self, stage: Stage) -> Holding:
        holding = self._holding(stage)
        return dataclasses.replace(holding, gpus=1.0) if stage.key in self._large else holding

    def _ended_by(
        self, error: Exception, reference: Reference, worker: _Worker, stage: Stage
    ) -> StageResult | None:
        if (limit := self._overdue.limit_passed(reference)) is not None:
            return self._failed(stage, "failed", timed_out(limit, limit))
        self._refuse_lost()  # a Ray that goes down takes its workers first
        self._ray.kill(worker.actor)  # one that only cannot be reached
        if not isinstance(error, self._ray.exceptions.RayActorError):
            return self._failed(stage, "failed", one_line(error))
        if is_up(self._ray, worker.node):
            self._crashes[stage.key] += 1
            if (times := self._crashes[stage.key]) > _CRASH_RETRIES:
                return self._failed(stage, "failed", f"the worker process died {times} times")
            return None
        self._losses[stage.key] += 1
        if (times := self._losses[stage.key]) > _NODE_RETRIES:
            return self._failed(stage, "failed", f"its node was lost {times} times")
        return None

    def _failed(self, stage: Stage, status: Literal["failed", "out_of_memory"], reason: str) -> StageResult:
        """Keep the failure in the store, as the dead process could not."""
        reason = reason[:_LONGEST_REASON]
        keep_failure(stage, open_store(self._context.store), status, reason)
        return StageResult(stage.key, status, reason=reason)


def _on(context: RunContext, holding: Holding) -> RunContext:
    """The context of a stage on a worker that holds so much."""
    return dataclasses.replace(context, threads=holding.threads, gpus_per_trial=holding.gpus)
