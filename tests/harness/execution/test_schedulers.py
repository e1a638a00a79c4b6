"""Both schedulers keep the same promises; Ray alone must also survive dying workers."""

from __future__ import annotations

import dataclasses

import pytest

from harness.errors import UsageError
from harness.execution.schedulers.inline import InlineScheduler
from harness.execution.schedulers.lazy import LazyScheduler
from harness.stages.base import RunContext
from harness.stages.facts import read_facts
from harness.store import open_store
from tests.harness.fake_stages import FakeFacts, context_of, runs_of, stage


@pytest.fixture(scope="module")
def ray_scheduler():
    from harness.execution.schedulers.ray_tasks import RayScheduler

    scheduler = RayScheduler()
    yield scheduler
    scheduler.close()


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.ray)])
def scheduler(request):
    if request.param == "inline":
        return InlineScheduler()
    return request.getfixturevalue("ray_scheduler")


@pytest.fixture
def context(tmp_path) -> RunContext:
    open_store(tmp_path).create()
    return context_of(tmp_path)


def statuses(results):
    return {key: result.status for key, result in results.items()}


def test_children_see_their_parents_artifacts(scheduler, context):
    a = stage("a")
    b = stage("b")
    c = stage("c", parents=(a, b))
    results = scheduler.run([a, b, c], context, lambda event: None)
    assert set(statuses(results).values()) == {"done"}
    store = open_store(context.store)
    assert store.tensors(c.key)["value"].tolist() == [3.0]
    assert read_facts(store, c.key, FakeFacts).torch_threads == 1


def test_finished_stages_do_not_run_again(scheduler, context):
    a = stage("a")
    scheduler.run([a], context, lambda event: None)
    results = scheduler.run([a, stage("b", parents=(a,))], context, lambda event: None)
    assert results[a.key].status == "cached"
    assert runs_of(open_store(context.store), "a") == 1


def test_a_failure_skips_its_dependents_alone(scheduler, context):
    bad = stage("bad", "fails")
    child = stage("child", parents=(bad,))
    grandchild = stage("grandchild", parents=(child,))
    other = stage("other")
    events = []
    results = scheduler.run([bad, child, grandchild, other], context, events.append)
    assert results[bad.key].status == "failed"
    assert "planted failure" in results[bad.key].reason
    assert results[child.key].status == results[grandchild.key].status == "skipped"
    assert "planted failure" in results[grandchild.key].reason
    assert results[other.key].status == "done"
    assert open_store(context.store).failure(bad.key)["reason"] == "ValueError: planted failure"
    assert sum(event.kind == "ended" for event in events) == 4


def test_out_of_memory_is_its_own_status(scheduler, context):
    hungry = stage("hungry", "exhausts_memory")
    results = scheduler.run([hungry], context, lambda event: None)
    assert results[hungry.key].status == "out_of_memory"


def test_a_later_success_clears_the_failure(scheduler, context):
    bad = stage("bad", "fails")
    scheduler.run([bad], context, lambda event: None)
    good = dataclasses.replace(bad, kind="work")
    scheduler.run([good], context, lambda event: None)
    assert open_store(context.store).failure(bad.key) is None


@pytest.mark.ray
def test_a_dying_worker_is_retried_once_then_a_failed_row(ray_scheduler, context):
    mortal = stage("mortal", "dies")
    lucky = stage("lucky", "dies_once")
    other = stage("other")
    results = ray_scheduler.run([mortal, lucky, other], context, lambda event: None)
    assert results[mortal.key].status == "failed"
    assert "worker process died" in results[mortal.key].reason
    assert runs_of(open_store(context.store), "mortal") == 2
    assert results[lucky.key].status == "done"
    assert results[other.key].status == "done"


@pytest.mark.ray
def test_more_than_the_cluster_has_is_refused(ray_scheduler, context):
    greedy = dataclasses.replace(context, threads=4096, gpus_per_trial=64)
    with pytest.raises(UsageError) as error:
        ray_scheduler.run([stage("a")], greedy, lambda event: None)
    assert "--cpus-per-trial 4096" in str(error.value)
    assert "--gpus-per-trial 64" in str(error.value)


def test_further_stages_are_asked_for_when_nothing_is_ready(scheduler, context):
    waiting = [stage("first"), stage("second"), stage("third")]
    asked = []

    def refill():
        asked.append(len(waiting))
        return [waiting.pop(0)] if waiting else []

    results = scheduler.run([], context, lambda event: None, refill=refill)
    assert list(statuses(results).values()) == ["done"] * 3
    assert asked[:3] == [3, 2, 1]
    assert asked[-1] == 0


def test_a_stage_that_is_asked_to_stop_ends_at_its_next_report(scheduler, context):
    store = open_store(context.store)
    slow = stage("slow", "reports", seconds=0.1)
    child = stage("child", parents=(slow,))

    def on_tick():
        if store.reports(slow.key):
            store.ask_to_stop(slow.key)

    results = scheduler.run([slow, child], context, lambda event: None, on_tick=on_tick)
    assert statuses(results) == {slow.key: "stopped", child.key: "skipped"}
    assert len(store.reports(slow.key)) < 20
    assert store.failure(slow.key) is None
    again = scheduler.run([slow], context, lambda event: None)
    assert statuses(again) == {slow.key: "done"}  # the request is forgotten


def test_a_lazy_scheduler_is_made_by_its_first_run_alone(context):
    made = []

    def make():
        made.append(InlineScheduler())
        return made[-1]

    lazy = LazyScheduler(make)
    lazy.close()
    assert not made
    for name in ("a", "b"):
        lazy.run([stage(name)], context, lambda event: None)
    assert len(made) == 1
