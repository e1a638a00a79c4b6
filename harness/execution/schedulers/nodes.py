"""What a cluster's nodes have, and what follows for a run: device, threads, slots, and what cannot be had.

Plain arithmetic on resources; knows nothing about Ray.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.stages.base import RunContext

_TINY = 1e-6
"""Part of a GPU that a rounded sum may be off."""


@dataclass(frozen=True)
class Node:
    """A node that lives, with all that it has, used or not."""

    id: str
    address: str
    cpus: float = 0.0
    gpus: float = 0.0
    accelerator: str = ""
    """Kind of its GPUs, such as `H100`; empty where it says none."""

    def room(self, threads: int, gpus: float, accelerator: str = "") -> int:
        """How many stages that hold so much fit on it; a part of a GPU lies on one GPU."""
        if accelerator not in ("", self.accelerator):
            return 0
        by_cpu = int(self.cpus // threads)
        return min(by_cpu, int(self.gpus) * int(1 / gpus + _TINY)) if gpus else by_cpu


@dataclass(frozen=True)
class Cluster:
    """The nodes that live, and whether others may join."""

    nodes: Sequence[Node]
    grows: bool = False
    """Whether a request that no node can meet may wait for one that can: so on a cluster that was joined."""
    gpus_to_come: float = 0.0
    """GPUs that an autoscaler says it can start."""

    @property
    def gpus(self) -> float:
        """GPUs that are there or may come."""
        return max(self.gpus_to_come, sum(node.gpus for node in self.nodes))


def settled(context: RunContext, cluster: Cluster) -> RunContext:
    """The context with its device, GPUs and threads as they are on this cluster.

    `auto` means a GPU where the cluster has any, whatever the driver's machine has. Threads that nobody chose
    share a node's cores among the stages that it can run at once.
    """
    if context.device == "auto":
        found = {"device": "cuda"} if cluster.gpus else {"device": "cpu", "gpus_per_trial": 0.0}
        context = dataclasses.replace(context, **found)
    return dataclasses.replace(context, threads=_threads(context, cluster)) if context.at_once else context


def _threads(context: RunContext, cluster: Cluster) -> int:
    """Threads that fit on every node of use, so many that the stages that can run at once fill its cores."""
    gpus = context.gpus_per_trial
    useful = [node for node in cluster.nodes if node.cpus and node.room(1, gpus, context.accelerator)]
    if not useful:
        return context.threads
    share = -(-context.at_once // len(useful))  # stages that a node gets when they are spread
    return max(1, min(int(node.cpus // max(1, min(share, node.room(1, gpus)))) for node in useful))


def slots(context: RunContext, cluster: Cluster, least_gpus: float | None = None) -> int:
    """How many stages can run at once now; `least_gpus` where stages hold different parts of a GPU."""
    gpus = context.gpus_per_trial if least_gpus is None else least_gpus
    return sum(node.room(context.threads, gpus, context.accelerator) for node in cluster.nodes)


def lacking(context: RunContext, cluster: Cluster) -> list[str]:
    """What no living node can give a stage, a sentence each; empty where one has room for it."""
    faults = []
    cpus = _largest(cluster, lambda node: node.cpus)
    gpus = _largest(cluster, lambda node: node.gpus)
    if context.threads > cpus:
        faults.append(f"--cpus-per-trial {context.threads}: the largest node has {cpus:.0f} CPUs")
    if context.gpus_per_trial > gpus:
        faults.append(f"--gpus-per-trial {context.gpus_per_trial:g}: the largest node has {gpus:.0f} GPUs")
    faults += _no_such_kind(context, cluster)
    if not faults and not slots(context, cluster):
        faults.append(
            f"--cpus-per-trial {context.threads} and --gpus-per-trial {context.gpus_per_trial:g}: "
            "no node has both"
        )
    return faults


def refused(context: RunContext, cluster: Cluster) -> list[str]:
    """What is lacking and not waited for: on a cluster that grows only a kind of GPU beside other kinds."""
    if not cluster.grows:
        return lacking(context, cluster)
    return _no_such_kind(context, cluster) if any(node.accelerator for node in cluster.nodes) else []


def _no_such_kind(context: RunContext, cluster: Cluster) -> list[str]:
    kinds = sorted({node.accelerator for node in cluster.nodes} - {""})
    if context.accelerator in ("", *kinds):
        return []
    there = ", ".join(kinds) or "none that says its kind"
    return [f"--accelerator-type {context.accelerator}: no node has it; there are {there}"]


def _largest(cluster: Cluster, of: Callable[[Node], float]) -> float:
    return max(map(of, cluster.nodes), default=0.0)
