"""The registry of schedulers, and what Ray and the lazy scheduler promise beyond the common contract."""

from __future__ import annotations

import dataclasses
import importlib.metadata

import pytest

from harness.errors import UsageError
from harness.execution.schedulers.base import Work
from harness.execution.schedulers.inline import InlineScheduler
from harness.execution.schedulers.lazy import LazyScheduler
from harness.execution.schedulers.registry import ENTRY_POINT_GROUP, get_scheduler, scheduler_names
from harness.stages.base import RunContext
from harness.store import open_store
from tests.harness.fake_stages import context_of, runs_of, stage


class PluggedIn(InlineScheduler):
    """An outsider's scheduler."""


NO_SCHEDULER = "text"


@pytest.fixture(scope="module")
def ray_scheduler():
    scheduler = get_scheduler("ray")(None)
    yield scheduler
    scheduler.close()


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
        ("missing", "Missing", "module .* has no attribute"),
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


@pytest.mark.ray
def test_more_than_the_cluster_has_is_refused(ray_scheduler, context):
    greedy = dataclasses.replace(context, threads=4096, gpus_per_trial=64)
    with pytest.raises(UsageError) as error:
        ray_scheduler.run(Work([stage("a")], greedy, lambda event: None))
    assert "--cpus-per-trial 4096" in str(error.value)
    assert "--gpus-per-trial 64" in str(error.value)


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
