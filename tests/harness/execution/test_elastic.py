"""A run on a cluster that begins without any node for its stages, grows, loses a node and shrinks."""

from __future__ import annotations

import dataclasses

import pytest

from harness.execution.schedulers.base import Work
from harness.execution.schedulers.inline import InlineScheduler
from harness.execution.schedulers.registry import get_scheduler
from harness.store import open_store
from tests.harness.execution.growing_cluster import growing_cluster
from tests.harness.fake_stages import context_of, runs_of, stage

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # of Ray's own processes
]
MOST = 4


def test_from_no_node_to_four_and_down_with_one_killed_in_mid_stage(tmp_path):
    slow = [stage(f"slow{n}", "sleeps", seconds=5) for n in range(12)]
    sums = [stage(f"sum{n}", parents=tuple(slow[n : n + 3])) for n in range(0, 12, 3)]
    tail = stage("tail", "sleeps", parents=tuple(sums), seconds=60)
    table = stage("table", parents=(*sums, tail))
    stages = [*slow, *sums, tail, table]
    alive, killed, notices = [], [], []

    def values(folder):
        store = open_store(folder)
        return {one.label: store.tensors(one.key)["value"].tolist() for one in stages}

    with growing_cluster({"CPU": 2, "GPU": 1}, MOST) as cluster:
        scheduler = get_scheduler("ray")(cluster.address)
        import ray

        def on_tick():
            nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
            alive.append(len(nodes))
            busy = sum(runs_of(store, one.label) for one in slow) - done[0]
            if len(nodes) == MOST and busy >= MOST and not killed:
                killed.append(nodes[0])
                cluster.kill_node(nodes[0])

        def on_event(event):
            done[0] += event.kind == "ended"

        store, done = open_store(tmp_path / "cluster").create(), [0]
        context = context_of(store.root, device="cuda", gpus_per_trial=1.0, threads=1)
        try:
            work = Work(stages, context, on_event, on_tick=on_tick, on_notice=notices.append)
            results = scheduler.run(work)
        finally:
            scheduler.close()
    assert {(result.status, result.reason) for result in results.values()} == {("done", "")}
    assert notices[0] == (
        "waiting for nodes that can run the stages: --cpus-per-trial 1: the largest node has 0 CPUs; "
        "--gpus-per-trial 1: the largest node has 0 GPUs"
    )
    # Ray's provider of nodes that are none may start more than the most, for those that it has lost sight of.
    assert max(alive) >= MOST
    assert (alive[0], alive[-1]) == (0, 1)  # the tail needs one alone
    assert killed
    assert sum(runs_of(store, one.label) for one in slow) == len(slow) + 1
    plain = open_store(tmp_path / "plain").create()
    quick = [one if one.kind == "work" else _quick(one) for one in stages]
    InlineScheduler().run(Work(quick, context_of(plain.root), lambda event: None))
    assert values(store.root) == values(plain.root)


def _quick(one):
    """The stage without its wait: the same key, so that both stores are compared key by key."""
    return dataclasses.replace(one, settings={**one.settings, "seconds": 0})
