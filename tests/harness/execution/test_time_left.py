"""How the time left is estimated, from earlier runs and from the steps of the running stages."""

from __future__ import annotations

import dataclasses

import pytest

from harness.execution import time_left
from harness.execution.stage_queue import StageQueue as Queue
from harness.execution.time_left import TimeLeft
from harness.stages.base import Stage


def stage(name: str, kind: str = "evaluate", parents: tuple[str, ...] = ()) -> Stage:
    return Stage(kind, name, {"task": name}, {parent: parent for parent in parents}, key=name)


def seconds_of(left: TimeLeft) -> float:
    found = left.left()
    assert found is not None
    return found.seconds


def test_nothing_is_known_until_a_stage_of_its_kind_was_timed():
    left = TimeLeft([stage("a"), stage("b")], {}, slots=1, device="cpu")
    assert left.left() is None
    left.ended(stage("a"), 10.0, done=True)
    assert seconds_of(left) == 10.0  # b is expected to take what its kind took


def test_stages_run_as_many_at_once_as_there_are_slots():
    known, long, unknown = stage("known"), stage("long"), stage("unknown")
    timings = {known.timing_name("cpu"): 10.0, long.timing_name("cpu"): 30.0, "quantize:other:x:y": 1000.0}
    left = TimeLeft([known, long, unknown], timings, slots=2, device="cpu")
    assert seconds_of(left) == 30.0  # 10, then the unknown one's mean of 20, beside the long one
    left.ended(known, 40.0, done=True)
    assert seconds_of(left) == 35.0  # the mean of 40 and 30
    assert left.seen == {known.timing_name("cpu"): 40.0}


def test_a_stage_waits_for_its_parents_whatever_the_slots():
    a, b, c = stage("a"), stage("b", parents=("a",)), stage("c", parents=("b",))
    timings = {one.timing_name("cpu"): 10.0 for one in (a, b, c)}
    assert seconds_of(TimeLeft([a, b, c], timings, slots=8, device="cpu")) == 30.0


def test_a_scheduler_that_leaves_ready_stages_waiting_has_no_more_slots():
    stages = [stage(name) for name in "abcd"]
    left = TimeLeft(stages, {one.timing_name("cpu"): 10.0 for one in stages}, slots=4, device="cpu")
    assert seconds_of(left) == 10.0
    left.started(stages[0])
    left.follow(stages[0], elapsed=4.0)
    assert seconds_of(left) == 36.0


def test_a_late_stage_is_told_by_its_own_steps():
    one = stage("one")
    left = TimeLeft([one], {one.timing_name("cpu"): 20.0}, slots=1, device="cpu")
    left.started(one)
    left.follow(one, elapsed=10.0, step=10, total=320)
    early = seconds_of(left)
    assert 10.0 < early < 310.0  # between what the store says and its own pace
    left.follow(one, elapsed=40.0, step=50, total=320)
    assert seconds_of(left) == pytest.approx(40.0 * 270 / 50)


def test_a_stage_that_nothing_is_known_of_is_told_by_its_own_steps_and_tells_of_its_like():
    running, like = stage("a", "quantize"), stage("b", "quantize")
    left = TimeLeft([running, like, stage("c")], {}, slots=1, device="cpu")
    left.started(running)
    assert left.left() is None
    left.follow(running, elapsed=30.0, step=1, total=4)
    found = left.left()
    assert found is not None
    assert found.seconds == pytest.approx(90.0 + 120.0)
    assert not found.is_whole  # nothing is known of the evaluation


def test_a_part_that_was_under_way_at_the_first_look_is_timed_from_there():
    one = stage("one")
    left = TimeLeft([one], {}, slots=1, device="cpu")
    left.started(one)
    left.follow(one, elapsed=0.0, step=5000, total=6000)
    assert left.left() is None
    left.follow(one, elapsed=2.0, step=5010, total=6000)
    assert seconds_of(left) == pytest.approx(198.0)


def test_a_second_part_has_a_pace_of_its_own():
    one = stage("one")
    left = TimeLeft([one], {}, slots=1, device="cpu")
    left.started(one)
    left.follow(one, elapsed=100.0, step=100, total=100)
    left.follow(one, elapsed=104.0, step=2, total=20)
    assert seconds_of(left) == pytest.approx(36.0)


def test_the_first_part_of_a_known_stage_does_not_end_it():
    one = stage("one")
    left = TimeLeft([one], {one.timing_name("cpu"): 100.0}, slots=1, device="cpu")
    left.started(one)
    left.follow(one, elapsed=20.0, step=99, total=100)
    assert seconds_of(left) == 80.0


@pytest.mark.parametrize("elapsed", [9.99, 10.0, 10.5, 25.0, 4000.0])
def test_what_runs_always_takes_a_second_yet(elapsed):
    one = stage("one")
    left = TimeLeft([one], {one.timing_name("cpu"): 10.0}, slots=1, device="cpu")
    left.started(one)
    left.follow(one, elapsed)
    assert seconds_of(left) >= 1.0
    left.follow(one, elapsed, step=320, total=320)
    assert seconds_of(left) >= 1.0


def test_a_silent_stage_that_is_late_is_expected_to_be_as_late_again():
    one = stage("one")
    left = TimeLeft([one], {one.timing_name("cpu"): 10.0}, slots=1, device="cpu")
    left.started(one)
    left.follow(one, elapsed=25.0)
    assert seconds_of(left) == 15.0


def test_a_failed_stage_says_nothing_about_how_long_others_take():
    left = TimeLeft([stage("a"), stage("b")], {}, slots=1, device="cpu")
    left.ended(stage("a"), 0.1, done=False)
    assert left.left() is None
    assert left.seen == {}


def test_nothing_is_left_when_all_have_ended():
    left = TimeLeft([stage("a")], {}, slots=4, device="cpu")
    left.ended(stage("a"), 1.0, done=False)
    assert seconds_of(left) == 0.0


def test_stages_far_ahead_count_as_work_that_all_slots_share(monkeypatch):
    reference = stage("reference")
    pairs = [
        (
            stage(f"make {n % 7}", "synthesize", ("reference",)),
            stage(f"score {n % 5}", "evaluate", (f"m{n}",)),
        )
        for n in range(900)
    ]
    stages = [reference]
    for n, (made, scored) in enumerate(pairs):
        stages += [dataclasses.replace(made, key=f"m{n}"), dataclasses.replace(scored, key=f"s{n}")]
    timings = {one.timing_name("cpu"): 5.0 + 3 * (n % 11) for n, one in enumerate(stages)}
    exact = TimeLeft(stages, timings, slots=16, device="cpu")
    near = TimeLeft(stages, timings, slots=16, device="cpu")
    for one in stages[:200]:
        for left in (exact, near):
            left.ended(one, timings[one.timing_name("cpu")], done=True)
    monkeypatch.setattr(time_left, "_NEAR", 10_000)
    expected = seconds_of(exact)
    monkeypatch.setattr(time_left, "_NEAR", 100)
    assert seconds_of(near) == pytest.approx(expected, rel=0.02)


def test_an_estimate_schedules_no_more_stages_however_many_are_open(monkeypatch):
    scheduled = []
    monkeypatch.setattr(
        time_left, "StageQueue", lambda found: scheduled.append(len(list(found))) or Queue(found)
    )
    left = TimeLeft([stage(str(n)) for n in range(3000)], {"evaluate:0:None:x": 1.0}, slots=8, device="cpu")
    assert scheduled.pop() == 3000  # once, to follow what starts and ends
    assert seconds_of(left) == 375.0
    assert scheduled == [1000]
