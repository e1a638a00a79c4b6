"""What a run survives: its processes are killed in mid-stage, at a seeded random time, and it ends as ever.

Each run is a process of its own. Only where its driver died is the same command given again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.store import Store, open_store
from tests.harness.fake_stages import runs_of, stage

pytestmark = [pytest.mark.slow, pytest.mark.ray]

ROOT = Path(__file__).resolve().parents[3]
FIRST = [stage(f"first {number}", "sleeps", seconds=4) for number in range(4)]
LAST = stage("last", parents=tuple(FIRST))
DRIVER = """
import sys
from pathlib import Path
from rich.console import Console
from harness.cli.stopping import stoppable
from harness.execution.ensure import ensure
from harness.execution.schedulers.registry import get_scheduler
from harness.store import open_store
from tests.harness.execution.test_losses import FIRST, LAST
from tests.harness.fake_stages import context_of

store, address = open_store(Path(sys.argv[1])).create(), sys.argv[2] or None
with stoppable(Console(), "Kept."):
    scheduler = get_scheduler("ray")(address)
    try:
        results = ensure([*FIRST, LAST], context_of(store.root), store, scheduler, Console())
    finally:
        scheduler.close()
sys.exit(any(result.status not in ("done", "cached") for result in results.values()))
"""
SUITE = ("--suite", "digits_w4a4", "--budget", "smoke", "--methods", "psaq_vit")
SEEDS = range(int(os.environ.get("LOSSES", "1")))
"""LOSSES=20 provokes every loss so often, at other times."""


def started(*command: str) -> subprocess.Popen[str]:
    """A Python process that finds this project's packages."""
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    _running.append(process)
    return process


_running: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nothing_goes_on_after_a_test() -> Iterator[None]:
    yield
    while _running:
        process = _running.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def fake_run(store: Store, address: str = "") -> subprocess.Popen[str]:
    """A run of FIRST, two at a time, and then LAST."""
    return started("-c", DRIVER, str(store.root), address)


def harness_run(store: Store) -> subprocess.Popen[str]:
    return started("-m", "harness.cli.main", "run", *SUITE, "--store", str(store.root))


def ends_well(process: subprocess.Popen[str]) -> str:
    """What the run wrote; its status has to be 0."""
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return output


def table_of(store: Store) -> list[dict[str, Any]]:
    """The leaderboard of SUITE, without costs."""
    command = (
        "-m",
        "harness.cli.main",
        "leaderboard",
        *SUITE,
        "--format",
        "json",
        "--store",
        str(store.root),
    )
    rows = json.loads(ends_well(started(*command)))
    return [{name: v for name, v in row.items() if not name.endswith(("_seconds", "_mb"))} for row in rows]


def wait_for(true: Callable[[], object], what: str, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.05)


def in_mid_stage(store: Store, seed: int, at_most: float) -> None:
    """Come back a random while after the first stage has said how far it is."""
    wait_for(lambda: any((store.root / "progress").glob("[!.]*.json")), "a stage that runs")
    time.sleep(random.Random(seed).uniform(0, at_most))


def processes_of(process: subprocess.Popen[str], name: str) -> list[Any]:
    """The descendants with that name; a worker that runs a stage is called after the task."""
    pytest.importorskip("ray")  # brings psutil along
    import psutil

    return [child for child in psutil.Process(process.pid).children(recursive=True) if child.name() == name]


def kill_one(process: subprocess.Popen[str], name: str, seed: int) -> None:
    wait_for(lambda: processes_of(process, name), f"a process {name}")
    random.Random(seed).choice(processes_of(process, name)).kill()


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path / "store").create()


def check(store: Store, output: str) -> None:
    """Every answer is there, and no stage ran more than once too often."""
    assert store.tensors(LAST.key)["value"].tolist() == [5.0]
    again = sum(runs_of(store, one.label) for one in FIRST) - len(FIRST)
    print(f"stages that ran again: {again}\n{output}")
    assert 0 <= again <= 2
    assert not any(store.failure(one.key) for one in (*FIRST, LAST))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "name", ["ray::_StageRunner.run", "raylet", "gcs_server", "ray::DashboardAgent", "ray::RuntimeEnvAgent"]
)
def test_a_run_outlives_a_process_of_its_ray(store, name, seed):
    run = fake_run(store)
    in_mid_stage(store, seed, at_most=3)
    kill_one(run, name, seed)
    check(store, ends_well(run))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_command_goes_on_after_its_driver_was_killed(store, seed):
    run = fake_run(store)
    in_mid_stage(store, seed, at_most=6)
    done = [one for one in FIRST if store.holds(one.key)]
    run.kill()
    run.communicate()
    check(store, ends_well(fake_run(store)))
    assert all(runs_of(store, one.label) == 1 for one in done)


@pytest.fixture
def cluster(monkeypatch) -> Iterator[Any]:
    """A cluster on this machine: a head without CPUs and two nodes of one CPU."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    made.shutdown()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_outlives_a_node_of_its_cluster(store, cluster, seed):
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    run = fake_run(store, cluster.address)
    in_mid_stage(store, seed, at_most=3)
    cluster.remove_node(random.Random(seed).choice(nodes), allow_graceful=False)
    check(store, ends_well(run))


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "SIGHUP", "exception", "by itself"])
def test_no_process_of_a_run_outlives_it_by_fifteen_seconds(store, end):
    pytest.importorskip("ray")  # brings psutil along
    import psutil

    run = fake_run(store)
    in_mid_stage(store, 0, at_most=1)
    its = psutil.Process(run.pid).children(recursive=True)
    assert any(child.name() == "raylet" for child in its)
    if end == "exception":
        (store.root / "timings.json").mkdir()  # the driver cannot write its timings at the end
    elif end != "by itself":
        run.send_signal(signal.Signals[end])
    run.wait(timeout=300)
    _, alive = psutil.wait_procs(its, timeout=15)
    assert not alive
    output, _ = run.communicate()
    assert end != "exception" or "cannot be written" in output or "Is a directory" in output


@pytest.mark.parametrize("lost", ["raylet", "driver"])
def test_the_table_is_that_of_an_undisturbed_run(store, tmp_path, lost):
    undisturbed = open_store(tmp_path / "undisturbed").create()
    ends_well(harness_run(undisturbed))
    run = harness_run(store)
    in_mid_stage(store, 0, at_most=2)
    if lost == "driver":
        run.send_signal(signal.SIGKILL)
        run.communicate()
        run = harness_run(store)
    else:
        kill_one(run, lost, 0)
    ends_well(run)
    assert table_of(store) == table_of(undisturbed)
