"""Asks every node of a cluster that stages may run on whether it reaches what they need."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError, one_line
from harness.execution.schedulers.nodes import Cluster, Node
from harness.execution.schedulers.reach import Needed, missing_here
from harness.execution.schedulers.shipping import runtime_env
from harness.stages.base import RunContext

if TYPE_CHECKING:
    from ray import ObjectRef

    Reference = ObjectRef[Any]

_MOST_SECONDS = 120.0
"""How long the nodes that are there at the start have for their answer."""


class Inspection:
    """Looks at each node once: those that are there before work starts, the others when they join."""

    def __init__(self, ray: ModuleType, context: RunContext, needed: Needed) -> None:
        self._ray = ray
        self._context = context
        self._needed = needed
        self._asked: set[str] = set()
        """Ids of nodes."""
        self._open: dict[Reference, Node] = {}

    def refuse(self, cluster: Cluster) -> None:
        """Raise UsageError with what any node of the cluster lacks, or when one does not answer."""
        self._ask(cluster)
        done, silent = self._look(_MOST_SECONDS)
        faults = self._answers(done)
        faults += [f"{_named(self._open.pop(one))}: no answer within {_MOST_SECONDS:.0f} s" for one in silent]
        if faults:
            raise UsageError.of(faults)

    def of_newcomers(self, cluster: Cluster) -> list[str]:
        """What nodes lack that joined after the start, as soon as they have answered."""
        self._ask(cluster)
        done, _ = self._look(0.0)
        return [f"{fault}: stages fail there" for fault in self._answers(done)]

    def _ask(self, cluster: Cluster) -> None:
        """Start a look at each node that was not looked at and can run a stage."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        context = self._context
        for node in cluster.nodes:
            room = node.room(context.threads, context.gpus_per_trial, context.accelerator)
            if node.id in self._asked or not room:
                continue
            self._asked.add(node.id)
            there = NodeAffinitySchedulingStrategy(node.id, soft=False)
            options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
            self._open[
                self._ray.remote(**options, **runtime_env(context))(missing_here).remote(self._needed)
            ] = node

    def _look(self, seconds: float) -> tuple[list[Reference], list[Reference]]:
        """Which of the open looks have an answer within so many seconds, and which have none."""
        if not self._open:
            return [], []
        done, silent = self._ray.wait(list(self._open), num_returns=len(self._open), timeout=seconds)
        return done, silent

    def _answers(self, references: Iterable[Reference]) -> list[str]:
        faults = []
        for reference in references:
            node = self._open.pop(reference)
            try:
                faults += [f"{_named(node)}: {missing}" for missing in self._ray.get(reference)]
            except self._ray.exceptions.RayError as error:
                if is_up(self._ray, node.id):
                    faults.append(f"{_named(node)}: the project does not run there: {one_line(error)[:300]}")
        return faults


def is_up(ray: ModuleType, node: str) -> bool:
    """Whether Ray has a node of that id that lives."""
    return any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())


def _named(node: Node) -> str:
    return f"node {node.address} ({node.id[:8]})"
