"""The registry of schedulers, and what Ray and the lazy scheduler promise beyond the common contract."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import RunCutShort, UsageError
from harness.execution.schedulers.base import Work
from harness.execution.schedulers.inline import InlineScheduler
from harness.execution.schedulers.lazy import LazyScheduler
from harness.execution.schedulers.local_ray import LocalRay
from harness.execution.schedulers.nodes import Cluster, Node
from harness.execution.schedulers.reach import missing_here, needed_by
from harness.execution.schedulers.registry import ENTRY_POINT_GROUP, get_scheduler, scheduler_names
from harness.execution.schedulers.shipping import shipped
from harness.stages.base import RunContext
from harness.store import open_store
from tests.harness.fake_stages import context_of, runs_of, stage


class PluggedIn(InlineScheduler):
    """An outsider's scheduler."""


NO_SCHEDULER = "text"


@pytest.fixture(scope="module")
def ray_scheduler(tmp_path_factory):
    """A local Ray, started in surroundings that would mislead it: a cluster elsewhere, a file in the way."""
    folder = tmp_path_factory.mktemp("working folder")
    for name in ("tasks", "methods", "harness"):
        (folder / f"{name}.py").write_text("raise ImportError('the file of a user')")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        before = dict(os.environ)
        scheduler = get_scheduler("ray")(None)
        yield scheduler
        scheduler.close()
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            assert os.environ.get(name) == before.get(name)


@pytest.fixture
def context(tmp_path) -> RunContext:
    open_store(tmp_path).create()
    return context_of(tmp_path)


@pytest.fixture
def installed(monkeypatch):
    """Install attributes of this module as scheduler plug-ins, given as name -> attribute."""

    def install(**values: str) -> None:
        points = [
            importlib.metadata.EntryPoint(name, f"{__name__}:{value}", ENTRY_POINT_GROUP)
            for name, value in values.items()
        ]
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)

    return install


def test_an_unknown_scheduler_is_refused_with_near_names():
    with pytest.raises(UsageError, match=r"unknown scheduler 'inlin': did you mean inline\?"):
        get_scheduler("inlin")


def test_a_plug_in_is_found_beside_the_built_in_ones(installed):
    installed(plugged=PluggedIn.__name__)
    assert scheduler_names() == ["ray", "inline", "plugged"]
    assert isinstance(get_scheduler("plugged")("somewhere:6379"), PluggedIn)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("missing", "Missing", "AttributeError"),
        ("inline", "PluggedIn", "the name is taken"),
        ("text", "NO_SCHEDULER", "it makes no scheduler"),
    ],
)
def test_a_broken_plug_in_warns_and_is_skipped(installed, name, value, why):
    installed(**{name: value}, plugged=PluggedIn.__name__)
    with pytest.warns(UserWarning, match=f"is skipped: {why}"):
        assert scheduler_names() == ["ray", "inline", "plugged"]


@pytest.mark.ray
def test_a_dying_worker_is_retried_once_then_a_failed_row(ray_scheduler, context):
    mortal = stage("mortal", "dies")
    lucky = stage("lucky", "dies_once")
    other = stage("other")
    results = ray_scheduler.run(Work([mortal, lucky, other], context, lambda event: None))
    assert results[mortal.key].status == "failed"
    assert "worker process died" in results[mortal.key].reason
    assert runs_of(open_store(context.store), "mortal") == 2
    assert results[lucky.key].status == "done"
    assert results[other.key].status == "done"
    kept = open_store(context.store).failure(mortal.key)
    assert kept == {"status": "failed", "reason": results[mortal.key].reason, "label": "mortal"}


@pytest.mark.ray
@pytest.mark.parametrize(("mode", "token"), [("disabled", ""), ("token", ""), ("token", "guessed")])
def test_a_stranger_cannot_use_a_local_ray(ray_scheduler, mode, token):
    import ray

    address = ray.get_runtime_context().gcs_address
    script = f"import ray\nray.init(address={address!r})\nprint('connected')"
    environment = {**os.environ, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": token}
    environment["RAY_NUM_REDIS_GET_RETRIES"] = "1"  # seconds that a stranger goes on trying
    stranger = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert stranger.returncode == 1
    assert "connected" not in stranger.stdout
    assert re.search("ConnectionError|AuthenticationError|Unauthenticated", stranger.stderr)


@pytest.mark.ray
def test_workers_start_in_the_users_folder(ray_scheduler, context):
    seen = stage("seen", "says_where")
    ray_scheduler.run(Work([seen], context, lambda event: None))
    assert (context.store / "where").read_text() == os.getcwd()


@pytest.mark.ray
def test_the_token_is_in_no_file_of_the_home_folder(ray_scheduler):
    file = Path.home() / ".ray" / "auth_token"
    assert os.environ["RAY_AUTH_TOKEN"] not in (file.read_text() if file.exists() else "")


@pytest.mark.ray
def test_more_than_the_cluster_has_is_refused(ray_scheduler, context):
    greedy = dataclasses.replace(context, threads=4096, gpus_per_trial=64)
    with pytest.raises(UsageError) as error:
        ray_scheduler.run(Work([stage("a")], greedy, lambda event: None))
    assert "--cpus-per-trial 4096" in str(error.value)
    assert "--gpus-per-trial 64" in str(error.value)


@pytest.mark.ray
def test_a_lost_ray_is_started_anew_once_and_its_stages_run_again(ray_scheduler, context, monkeypatch):
    """Only the news of the loss is made up: that Ray is stopped in mid-stage, and another one started."""
    store, first = open_store(context.store), stage("first")
    last = dataclasses.replace(stage("last", "sleeps", seconds=3), after=(first.key,))
    losses, notices = iter(["raylet"]), []

    def lost(self):
        return next(losses, "") if runs_of(store, "last") else ""

    monkeypatch.setattr(LocalRay, "lost", lost)
    before = signal.getsignal(signal.SIGTERM)
    results = ray_scheduler.run(Work([first, last], context, lambda event: None, on_notice=notices.append))
    assert [result.status for result in results.values()] == ["done", "done"]
    assert (runs_of(store, "first"), runs_of(store, "last")) == (1, 2)
    assert notices == [
        "Ray on this machine was lost (its raylet ended); it is started anew, "
        "and what was under way (1 stage) runs again"
    ]
    assert signal.getsignal(signal.SIGTERM) == before
    losses, last = iter(["gcs_server"]), stage("again", "sleeps", seconds=30)
    with pytest.raises(RunCutShort, match=r"lost \(its gcs_server ended\) again, after it had been started"):
        ray_scheduler.run(Work([last], context, lambda event: None))


@pytest.mark.ray
def test_what_a_node_does_not_reach_is_named(ray_scheduler, context, tmp_path):
    import ray

    from harness.execution.schedulers.inspection import Inspection

    (tmp_path / "here").mkdir()
    data = {"imagenet": tmp_path / "here", "coco": tmp_path / "gone"}
    weights = {"deit_tiny": Path(f"{tmp_path / 'w.pth'}::model_ema")}
    asked = dataclasses.replace(context, data=data, weights=weights, plugins=(tmp_path / "mine.py",))
    node = ray.nodes()[0]
    cluster = Cluster([Node(node["NodeID"], "10.0.0.7", cpus=1)])
    with needed_by(asked) as needed, pytest.raises(UsageError) as error:
        Inspection(ray, asked, needed).refuse(cluster)
    named = f"node 10.0.0.7 ({node['NodeID'][:8]})"
    assert str(error.value).splitlines() == [
        f"{named}: --data coco={tmp_path / 'gone'} is not there",
        f"{named}: --weights deit_tiny={tmp_path / 'w.pth'} is not there",
        f"{named}: --plugin {tmp_path / 'mine.py'} is not there",
    ]
    with needed_by(context) as needed:
        inspection = Inspection(ray, context, needed)
        inspection.refuse(cluster)
        assert inspection.of_newcomers(cluster) == []  # looked at once
    assert not list(context.store.glob(".reached-*"))


@pytest.mark.ray
def test_the_project_and_plug_ins_travel_with_the_run(ray_scheduler, context, tmp_path):
    plugin, root = tmp_path / "mine.py", Path(__file__).resolve().parents[3]
    plugin.write_text("METHODS = ()\nENGINES = {}\n")
    own = root / "backbones" / "digits" / "weights" / "digits_vit.safetensors"
    weights = {"digits_vit": own, "deit_tiny": Path("/elsewhere/w.pth")}
    asked = dataclasses.replace(context, ship_code=True, plugins=(plugin,), weights=weights)
    sent = shipped(asked)
    assert sent.plugins[0].read_text() == plugin.read_text()
    assert sent.plugins[0].is_relative_to(context.store)
    assert sent.weights["digits_vit"].read_bytes() == own.read_bytes()
    assert sent.weights["digits_vit"].is_relative_to(context.store)
    assert sent.weights["deit_tiny"] == Path("/elsewhere/w.pth")
    assert shipped(asked) == sent  # copied once
    seen = stage("seen", "says_where")
    result = ray_scheduler.run(
        Work([seen], dataclasses.replace(asked, weights={}, plugins=()), lambda event: None)
    )
    assert result[seen.key].reason == ""
    # The checkout of this machine is before it: the driver's own path, which a node need not have.
    assert str(sent.project) in (context.store / "source").read_text().splitlines()


def test_a_folder_of_the_same_name_is_not_the_store(tmp_path):
    store, other = tmp_path / "a", tmp_path / "b"
    for folder in (store, other):
        folder.mkdir()
    with needed_by(context_of(store)) as needed:
        assert missing_here(needed) == []
        elsewhere = dataclasses.replace(needed, store=other)
        assert missing_here(elsewhere) == [f"--store {other} is another folder than the driver's"]
        nowhere = dataclasses.replace(needed, store=tmp_path / "c")
        assert missing_here(nowhere) == [f"--store {tmp_path / 'c'} is not there"]


def test_a_lazy_scheduler_is_made_by_its_first_run_alone(context):
    made = []

    def make():
        made.append(InlineScheduler())
        return made[-1]

    lazy = LazyScheduler(make)
    lazy.close()
    assert not made
    for name in ("a", "b"):
        lazy.run(Work([stage(name)], context, lambda event: None))
    assert len(made) == 1
