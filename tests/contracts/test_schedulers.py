"""What every registered scheduler promises, ours or a plug-in's; `ray` alone is marked as such."""

from __future__ import annotations

import dataclasses

import pytest

from harness.execution.schedulers.base import Work
from harness.execution.schedulers.registry import get_scheduler, scheduler_names
from harness.stages.base import RunContext
from harness.stages.facts import read_facts
from harness.store import open_store
from tests.harness.fake_stages import FakeFacts, context_of, runs_of, stage

NAMES = [pytest.param(name, marks=pytest.mark.ray) if name == "ray" else name for name in scheduler_names()]


@pytest.fixture(params=NAMES, scope="module")
def scheduler(request):
    made = get_scheduler(request.param)(None)
    yield made
    made.close()


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
    results = scheduler.run(Work([a, b, c], context, lambda event: None))
    assert set(statuses(results).values()) == {"done"}
    store = open_store(context.store)
    assert store.tensors(c.key)["value"].tolist() == [3.0]
    assert read_facts(store, c.key, FakeFacts).torch_threads == 1


def test_finished_stages_do_not_run_again(scheduler, context):
    a = stage("a")
    scheduler.run(Work([a], context, lambda event: None))
    results = scheduler.run(Work([a, stage("b", parents=(a,))], context, lambda event: None))
    assert results[a.key].status == "cached"
    assert runs_of(open_store(context.store), "a") == 1


def test_a_failure_skips_its_dependents_alone(scheduler, context):
    bad = stage("bad", "fails")
    child = stage("child", parents=(bad,))
    grandchild = stage("grandchild", parents=(child,))
    other = stage("other")
    events = []
    results = scheduler.run(Work([bad, child, grandchild, other], context, events.append))
    assert results[bad.key].status == "failed"
    assert "planted failure" in results[bad.key].reason
    assert results[child.key].status == results[grandchild.key].status == "skipped"
    assert "planted failure" in results[grandchild.key].reason
    assert results[other.key].status == "done"
    assert open_store(context.store).failure(bad.key)["reason"] == "ValueError: planted failure"
    assert sum(event.kind == "ended" for event in events) == 4


def test_out_of_memory_is_its_own_status(scheduler, context):
    hungry = stage("hungry", "exhausts_memory")
    results = scheduler.run(Work([hungry], context, lambda event: None))
    assert results[hungry.key].status == "out_of_memory"


def test_a_later_success_clears_the_failure(scheduler, context):
    bad = stage("bad", "fails")
    scheduler.run(Work([bad], context, lambda event: None))
    good = dataclasses.replace(bad, kind="work")
    scheduler.run(Work([good], context, lambda event: None))
    assert open_store(context.store).failure(bad.key) is None


def test_further_stages_are_asked_for_when_nothing_is_ready(scheduler, context):
    waiting = [stage("first"), stage("second"), stage("third")]
    asked = []

    def refill():
        asked.append(len(waiting))
        return [waiting.pop(0)] if waiting else []

    results = scheduler.run(Work([], context, lambda event: None, refill=refill))
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

    results = scheduler.run(Work([slow, child], context, lambda event: None, on_tick=on_tick))
    assert statuses(results) == {slow.key: "stopped", child.key: "skipped"}
    assert len(store.reports(slow.key)) < 20
    assert store.failure(slow.key) is None
    again = scheduler.run(Work([slow], context, lambda event: None))
    assert statuses(again) == {slow.key: "done"}  # the request is forgotten


def test_events_tell_of_every_start_and_end_in_order(scheduler, context):
    parent = stage("parent")
    child = stage("child", parents=(parent,))
    events = []
    scheduler.run(Work([parent, child], context, events.append))
    assert [(event.kind, event.stage.label) for event in events] == [
        ("started", "parent"),
        ("ended", "parent"),
        ("started", "child"),
        ("ended", "child"),
    ]
    assert [event.result.status for event in events if event.kind == "ended"] == ["done", "done"]


def test_a_parent_that_is_not_among_the_stages_is_taken_as_done(scheduler, context):
    parent = stage("parent")
    scheduler.run(Work([parent], context, lambda event: None))
    child = stage("child", parents=(parent,))
    results = scheduler.run(Work([child], context, lambda event: None))
    assert statuses(results) == {child.key: "done"}


def test_a_stage_beyond_its_time_limit_fails_and_the_others_go_on(scheduler, context):
    warm = [stage(name, "sleeps", seconds=1) for name in ("warm", "warmer")]  # workers with torch imported
    scheduler.run(Work(warm, context, lambda event: None))
    slow, other = stage("slow", "sleeps", seconds=60), stage("other")
    child = stage("child", parents=(slow,))
    limited = dataclasses.replace(context, stage_timeout=3)
    results = scheduler.run(Work([slow, child, other], limited, lambda event: None))
    assert statuses(results) == {slow.key: "failed", child.key: "skipped", other.key: "done"}
    store = open_store(context.store)
    assert store.failure(slow.key)["reason"] == results[slow.key].reason
    assert "timed out after " in results[slow.key].reason
    assert runs_of(store, "slow") == 1
    again = dataclasses.replace(slow, kind="work")
    assert statuses(scheduler.run(Work([again], context, lambda event: None))) == {slow.key: "done"}
