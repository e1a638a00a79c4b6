"""Which stages may run, in which order, and that finding out does not look at all the others."""

from __future__ import annotations

from harness.execution.stage_queue import StageQueue
from harness.stages.base import Stage


def stage(name: str, *parents: str) -> Stage:
    return Stage("evaluate", name, {}, {parent: parent for parent in parents}, key=name)


def drained(queue: StageQueue) -> list[str]:
    """The order in which a single worker would run what is open."""
    order = []
    while (one := queue.first_ready()) is not None:
        queue.start(one.key)
        queue.end(one.key)
        order.append(one.key)
    return order


def test_the_first_stage_in_order_whose_parents_are_done_is_next():
    queue = StageQueue([stage("a"), stage("b", "a"), stage("c"), stage("d", "b", "c")])
    assert queue.first_ready().key == "a"
    queue.start("a")
    assert queue.first_ready().key == "c"
    queue.end("a")
    assert drained(queue) == ["b", "c", "d"]


def test_parents_may_come_after_their_children_and_later_than_they():
    queue = StageQueue([stage("child", "parent", "other"), stage("parent")])
    assert queue.first_ready().key == "parent"
    queue.start("parent")
    queue.add([stage("other"), stage("parent")])  # the one that runs is not taken in again
    queue.end("parent")
    assert drained(queue) == ["other", "child"]


def test_a_stage_that_has_ended_may_be_added_again():
    queue = StageQueue([stage("a")])
    assert drained(queue) == ["a"]
    queue.add([stage("b"), stage("a"), stage("c", "a")])
    assert drained(queue) == ["b", "a", "c"]


def test_dependents_are_all_that_wait_for_a_stage_however_indirectly():
    queue = StageQueue([stage("a"), stage("c", "a", "b"), stage("b"), stage("d", "c"), stage("e", "b")])
    queue.start("a")
    assert [one.key for one in queue.dependents("a")] == ["c", "d"]
    for key in ("a", "c", "d"):
        queue.end(key)
    assert drained(queue) == ["b", "e"]


def test_finding_the_next_stage_looks_at_few(monkeypatch):
    looks = []
    awaited = Stage.awaited.fget
    chain = [stage("0"), *(stage(str(n), str(n - 1)) for n in range(1, 300))]
    queue = StageQueue([*chain, *(stage(f"free {n}") for n in range(300))])
    monkeypatch.setattr(Stage, "awaited", property(lambda one: looks.append(one) or awaited(one)))
    assert len(drained(queue)) == 600
    assert len(looks) < 4 * 600
