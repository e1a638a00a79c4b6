"""The order of stages by the work that waits for them."""

from __future__ import annotations

from harness.execution.longest_first import longest_first, path_seconds
from harness.execution.stage_queue import StageQueue
from harness.stages.base import Stage


def stage(name: str, *parents: str, kind: str = "evaluate") -> Stage:
    return Stage(kind, name, {"backbone": name}, {parent: parent for parent in parents}, key=name)


def order_of(stages, seconds):
    timings = {one.timing_name("cpu"): seconds[one.key] for one in stages if one.key in seconds}
    queue, order = StageQueue(stages, longest_first(timings, "cpu")), []
    while (one := queue.first_ready()) is not None:
        queue.start(one.key)
        queue.end(one.key)
        order.append(one.key)
    return order


def test_the_longest_stage_goes_first():
    assert order_of([stage("a"), stage("b"), stage("c")], {"a": 1, "b": 3, "c": 2}) == ["b", "c", "a"]


def test_a_short_link_with_work_behind_it_goes_before_a_longer_stage():
    chain = [stage("link"), stage("next", "link"), stage("last", "next")]
    seconds = {"single": 5, "link": 1, "next": 4, "last": 4}
    assert order_of([stage("single"), *chain], seconds) == ["link", "next", "single", "last"]


def test_without_timings_stages_go_as_they_come():
    assert order_of([stage("b"), stage("a"), stage("c")], {}) == ["b", "a", "c"]


def test_a_stage_of_which_nothing_is_known_counts_as_the_mean_of_the_others():
    stages = [stage("short"), stage("new", kind="train"), stage("long")]
    assert order_of(stages, {"short": 1, "long": 9}) == ["long", "new", "short"]


def test_timings_of_another_device_are_not_taken():
    stages = [stage("a"), stage("b", kind="train")]
    timings = {stages[1].timing_name("cuda"): 100.0}
    assert longest_first(timings, "cpu")(stages)["a"] == 100.0  # the mean of all, for want of better


def test_a_chain_counts_from_each_of_its_stages():
    stages = [stage("a"), stage("b", "a"), stage("c", "a"), stage("d", "b")]
    assert path_seconds(stages, lambda _: 2.0) == {"a": 6.0, "b": 4.0, "c": 2.0, "d": 2.0}
