"""Runs stages on the workers of a Ray, on this machine or on a cluster.

A worker gets the stage's settings and returns how it ended; artifacts go through the store, which on a
cluster has to be a folder that all nodes share. How many stages run at once follows the nodes that live.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import ModuleType

from harness.errors import RunCutShort, UsageError, one_line
from harness.execution.longest_first import longest_first
from harness.execution.schedulers.base import Progression, Work
from harness.execution.schedulers.crew import Crew, Holding, RayLost
from harness.execution.schedulers.inspection import Inspection
from harness.execution.schedulers.local_ray import LocalRay, project_root, working_from
from harness.execution.schedulers.nodes import Cluster, Node, lacking, refused, settled, slots
from harness.execution.schedulers.reach import needed_by
from harness.execution.schedulers.shipping import shipped
from harness.planning.gpu_memory import part_of_gpu
from harness.stages.base import RunContext, Stage, StageResult
from harness.store import open_store

_RESTARTS = 1
"""How often a local Ray that was lost is started anew."""
_LOOK_SECONDS = 1.0
"""Time between two looks at which nodes live."""
_WINDOW = 32
"""Stages beyond those that have room for which workers are asked of a cluster, so that it may grow."""
_ACCELERATOR = "accelerator_type:"


class RayScheduler:
    """Starts a Ray that nobody else can use, or joins the cluster at `address`, once per suite."""

    def __init__(self, address: str | None = None) -> None:
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._local = LocalRay() if address is None else None
        self._restarts = 0
        self._seen: Cluster | None = None
        self._looked = 0.0
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
        folder = None if self._local is None else Path.cwd()
        self._crew, self._seen = Crew(ray, folder, self._refuse_lost), None

    def run(self, work: Work) -> dict[str, StageResult]:
        """See `Scheduler.run`. Raises UsageError when a stage asks for more than the cluster has.

        A local Ray that is lost is started again, once; what ran on it runs again. Raises RunCutShort when it
        is lost once more, or a cluster is.
        """
        cluster = self._cluster()
        context = settled(work.context, cluster)
        if faults := refused(context, cluster):
            raise UsageError.of(faults)
        work.on_device(context.device)
        if context.ship_code:
            context = shipped(context)
        with contextlib.ExitStack() as stack:
            if self._local is None:
                self._inspection = Inspection(self._ray, context, stack.enter_context(needed_by(context)))
                self._inspection.refuse(cluster)
            return self._run(dataclasses.replace(work, context=context))

    def _run(self, work: Work) -> dict[str, StageResult]:
        """Run the stages of a context that is settled."""
        context, told = work.context, ""
        progression = Progression(work, longest_first(open_store(context.store).timings(), context.device))
        kinds = {node.accelerator for node in self._cluster().nodes if node.gpus}
        holding = functools.partial(
            _holding, context, {context.accelerator} if context.accelerator else kinds
        )
        self._crew.serve(context, holding)
        held = [holding(stage).gpus for stage in work.stages] if context.gpus_by_memory else []
        offered: list[Stage] = []
        """Stages that may run and wait for a worker: what an autoscaler sees."""
        while True:
            cluster = self._cluster()
            room = max(1, slots(context, cluster, min(held, default=None))) + (
                _WINDOW if cluster.grows else 0
            )
            while len(self._crew.stages) + len(offered) < room and (stage := progression.take_next()):
                offered.append(stage)
            if (awaited := "; ".join(lacking(context, cluster)) if offered else "") not in ("", told):
                told = awaited
                work.on_notice(f"waiting for nodes that can run the stages: {awaited}")
            for sentence in self._newcomers(cluster):
                work.on_notice(sentence)
            for stage in self._crew.give(progression.in_order(offered)):
                offered.remove(stage)
                progression.begin(stage)
            if not offered and not self._crew.stages:
                return progression.results
            try:
                ended, again = self._crew.wait()
            except RayLost as lost:
                offered += self._crew.stages
                self._start_again(str(lost), work)
                self._crew.serve(context, holding)
                continue
            work.on_tick()
            offered += again
            for result in ended:
                progression.end(result)

    def _newcomers(self, cluster: Cluster) -> list[str]:
        """What nodes that joined a cluster meanwhile do not reach."""
        return [] if self._local is not None else self._inspection.of_newcomers(cluster)

    def _cluster(self) -> Cluster:
        """What lives of the cluster; looked at anew after a while."""
        now = time.monotonic()
        if self._seen is None or now - self._looked > _LOOK_SECONDS:
            self._seen, self._looked = self._look(), now
        return self._seen

    def _look(self) -> Cluster:
        nodes = [
            Node(
                id=node["NodeID"],
                address=node["NodeManagerAddress"],
                cpus=node["Resources"].get("CPU", 0.0),
                gpus=node["Resources"].get("GPU", 0.0),
                accelerator=_accelerator_of(node["Resources"]),
            )
            for node in self._ray.nodes()
            if node["Alive"]
        ]
        if self._local is not None:
            return Cluster(nodes)
        return Cluster(nodes, grows=True, gpus_to_come=_gpus_to_come(self._ray))

    def _refuse_lost(self) -> None:
        """Raise RayLost when the local Ray has lost a process without which it does not work."""
        if self._local is not None and (name := self._local.lost()):
            raise RayLost(f"Ray on this machine was lost (its {name} ended)")

    def _start_again(self, lost: str, work: Work) -> None:
        """A new local Ray, with a crew of its own, for the stages of the lost one."""
        if self._local is None:
            raise RunCutShort(lost)
        if self._restarts == _RESTARTS:
            raise RunCutShort(f"{lost} again, after it had been started anew")
        self._restarts += 1
        count = len(self._crew.stages)
        under_way = "1 stage" if count == 1 else f"{count} stages"
        work.on_notice(f"{lost}; it is started anew, and what was under way ({under_way}) runs again")
        try:
            with _quiet_stderr():
                self._local.stop()
                self._start(None)
        except Exception as error:  # as in __init__
            raise RunCutShort(f"{lost} and could not be started anew: {one_line(error)[:300]}") from None

    def close(self) -> None:
        """Stop the local Ray or leave the cluster; running stages end."""
        with _quiet_stderr():
            if self._local is not None:
                self._local.stop()
            else:
                self._ray.shutdown()


def _kinds(context: RunContext, cluster: Cluster) -> set[str]:
    """The kinds of GPU on which stages may run."""
    there = {node.accelerator for node in cluster.nodes if node.gpus}
    return {context.accelerator} if context.accelerator else there


def _holding(context: RunContext, kinds: Collection[str], stage: Stage) -> Holding:
    """What the stage's worker has to hold, on GPUs of these kinds."""
    gpus = context.gpus_per_trial
    if gpus and context.gpus_by_memory:
        gpus = part_of_gpu(stage, context, kinds)
    return Holding(context.threads, gpus, context.accelerator, context.project)


def _accelerator_of(resources: Mapping[str, float]) -> str:
    """The kind of a node's GPUs: Ray has it among the resources, as it has it in the label of the node."""
    kinds = [name for name in resources if name.startswith(_ACCELERATOR)]
    return kinds[0].removeprefix(_ACCELERATOR) if kinds else ""


def _gpus_to_come(ray: ModuleType) -> float:
    """GPUs of all nodes that the cluster's autoscaler may start; 0 where it says nothing."""
    try:
        most = ray._private.state.state.get_max_resources_from_cluster_config()
    except Exception:  # a private part of Ray, and none for a client at ray://
        return 0.0
    return float((most or {}).get("GPU", 0))


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
