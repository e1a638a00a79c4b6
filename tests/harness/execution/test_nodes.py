"""What follows from a cluster's nodes, without a Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.execution.schedulers.nodes import Cluster, Node, lacking, refused, settled, slots
from harness.stages.base import RunContext

HEAD = Node("head", "10.0.0.1", cpus=4)
GPU_NODE = Node("gpu", "10.0.0.2", cpus=32, gpus=8, accelerator="A100")


def context(**more) -> RunContext:
    return RunContext(Path("unused"), **more)


def test_auto_is_a_gpu_where_any_node_has_one():
    found = settled(context(device="auto", gpus_per_trial=1.0), Cluster([HEAD, GPU_NODE]))
    assert (found.device, found.gpus_per_trial) == ("cuda", 1.0)


def test_auto_is_the_cpu_where_no_node_has_one_and_none_is_held():
    found = settled(context(device="auto", gpus_per_trial=1.0), Cluster([HEAD]))
    assert (found.device, found.gpus_per_trial) == ("cpu", 0.0)


def test_auto_is_a_gpu_where_an_autoscaler_can_start_one():
    found = settled(context(device="auto", gpus_per_trial=1.0), Cluster([HEAD], grows=True, gpus_to_come=4.0))
    assert found.device == "cuda"


def test_a_device_that_was_chosen_stays():
    assert settled(context(device="cpu"), Cluster([GPU_NODE])).device == "cpu"


@pytest.mark.parametrize(
    ("gpus", "threads", "count"),
    [(1.0, 1, 8), (0.5, 1, 16), (0.3, 1, 24), (1.0, 8, 4), (0.0, 1, 36), (0.0, 3, 11)],
)
def test_slots_are_what_fits_on_each_node(gpus, threads, count):
    """Three of 0.3 on a GPU, not 26 on eight of them; and no stage on the rests of two nodes' cores."""
    assert slots(context(threads=threads, gpus_per_trial=gpus), Cluster([HEAD, GPU_NODE])) == count


@pytest.mark.parametrize(
    ("at_once", "gpus", "threads"),
    [(1, 0.0, 32), (4, 0.0, 8), (64, 0.0, 1), (1, 1.0, 32), (64, 1.0, 4), (64, 0.5, 2)],
)
def test_threads_share_a_nodes_cores_among_its_stages(at_once, gpus, threads):
    asked = context(device="cuda" if gpus else "cpu", gpus_per_trial=gpus, at_once=at_once)
    assert settled(asked, Cluster([GPU_NODE])).threads == threads


def test_threads_that_were_chosen_stay():
    assert settled(context(threads=3), Cluster([GPU_NODE])).threads == 3


def test_a_kind_of_gpu_that_no_node_has_is_refused_with_those_that_are_there():
    asked = context(device="cuda", gpus_per_trial=1.0, accelerator="H100")
    (said,) = refused(asked, Cluster([HEAD, GPU_NODE], grows=True))
    assert said == "--accelerator-type H100: no node has it; there are A100"
    asked = context(device="cuda", gpus_per_trial=1.0, accelerator="A100")
    assert refused(asked, Cluster([HEAD, GPU_NODE])) == []
    assert slots(asked, Cluster([HEAD, GPU_NODE, Node("other", "10.0.0.3", 32, 8, "L4")])) == 8


def test_gpus_that_are_not_there_yet_are_waited_for_on_a_cluster_alone():
    asked = context(device="cuda", gpus_per_trial=1.0)
    (said,) = lacking(asked, Cluster([HEAD], grows=True))
    assert said == "--gpus-per-trial 1: the largest node has 0 GPUs"
    assert refused(asked, Cluster([HEAD], grows=True)) == []
    assert refused(asked, Cluster([HEAD])) == [said]


def test_cores_and_gpus_have_to_be_on_one_node():
    nodes = [Node("cores", "10.0.0.4", cpus=64), Node("gpus", "10.0.0.5", cpus=2, gpus=1)]
    (said,) = lacking(context(device="cuda", threads=8, gpus_per_trial=1.0), Cluster(nodes))
    assert said.endswith("no node has both")
