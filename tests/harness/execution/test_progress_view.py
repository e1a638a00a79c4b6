"""What a person sees of a run, and how the time left is estimated."""

from __future__ import annotations

import dataclasses
import io
import sys
import threading
import time

import pytest
from rich.console import Console

from harness.execution.progress_view import RunView, TimeLeft
from harness.execution.schedulers.base import Event
from harness.stages.base import RunContext, Stage, StageResult
from harness.store import Store, open_store


def stage(name: str, kind: str = "evaluate") -> Stage:
    return Stage(kind, name, {"task": name}, {}, key=name)


def started(one: Stage) -> Event:
    return Event("started", one)


def ended(one: Stage, status: str = "done", seconds: float = 2.0, reason: str = "") -> Event:
    return Event("ended", one, StageResult(one.key, status, seconds, reason))


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path).create()


@pytest.fixture
def view_of(store):
    """Makes a view of stages; its console writes into `view_of.text`, on a terminal or not."""

    def make(stages, *, cached: int = 0, terminal: bool = False) -> RunView:
        make.text = io.StringIO()
        console = Console(file=make.text, width=160, force_terminal=terminal, color_system=None)
        return RunView(stages, cached, store, 1, console, RunContext(store.root))

    return make


def drawn(view: RunView) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(view.table())
    return console.file.getvalue()


def test_off_a_terminal_every_end_is_a_line_and_a_start_is_none(view_of):
    good, bad, child, known = stages = [stage(name) for name in ("good", "bad", "child", "known")]
    with view_of(stages) as view:
        view.on_event(started(good))
        view.on_event(ended(good, seconds=1.25))
        view.on_event(started(bad))
        view.on_event(ended(bad, "failed", reason="ValueError: [planted] failure"))
        view.on_event(ended(child, "skipped", reason="evaluate failed"))
        view.on_event(ended(known, "cached"))
    assert view_of.text.getvalue().splitlines() == [
        "1/4 evaluate: good, 1.2 s",
        "failed evaluate: bad: ValueError: [planted] failure",
    ]


def test_running_out_of_memory_is_told_as_a_failure(view_of):
    hungry = stage("hungry")
    with view_of([hungry]) as view:
        view.on_event(ended(hungry, "out_of_memory", reason="8 GiB were asked for"))
    assert view_of.text.getvalue() == "failed evaluate: hungry: 8 GiB were asked for\n"
    assert "1 failed" in view.table().title


def test_the_table_has_the_step_and_the_losses_of_every_running_stage(view_of, store):
    first, second = stage("first", "synthesize"), stage("second")
    view = view_of([first, second])
    view.on_event(started(first))
    view.on_event(started(second))
    store.write_progress(first.key, {"step": 30, "total": 200, "losses": {"bns": 0.123456, "tv": 12.0}})
    lines = drawn(view).splitlines()
    (row,) = [line for line in lines if "first" in line]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "synthesize",
        "first",
        "30/200",
        "bns 0.1235  tv 12",
        "0:00",
    ]
    assert any("second" in line for line in lines)
    view.on_event(ended(first))
    assert "first" not in drawn(view)


def test_the_title_counts_every_stage_once(view_of):
    names = ("good", "bad", "child", "known", "running", "waiting")
    good, bad, child, known, running, _ = stages = [stage(name) for name in names]
    view = view_of(stages, cached=3)
    view.on_event(started(running))
    for one, status in ((good, "done"), (bad, "failed"), (child, "skipped"), (known, "cached")):
        view.on_event(ended(one, status))
    assert "1 done, 1 running, 1 failed, 4 cached, 1 waiting" in view.table().title


def test_on_a_terminal_the_table_is_live_and_goes_away_at_the_end(view_of):
    one = stage("one")
    with view_of([one], terminal=True) as view:
        view.on_event(started(one))
        view.on_event(ended(one))
    shown = view_of.text.getvalue()
    assert "1 done, 0 running" in shown
    assert "1/1 evaluate" not in shown
    assert shown.rstrip("\r\n").endswith("\x1b[2K")  # the last thing written erases the table's line


def test_the_table_may_be_drawn_while_stages_start_and_end(view_of):
    stages = [stage(f"stage {index}") for index in range(400)]
    view = view_of(stages)
    faults: list[BaseException] = []
    done = threading.Event()

    def draw() -> None:
        try:
            while not done.is_set():
                view.table()
        except BaseException as error:
            faults.append(error)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    drawers = [threading.Thread(target=draw) for _ in range(3)]
    try:
        for drawer in drawers:
            drawer.start()
        for ahead, one in enumerate(stages):
            view.on_event(started(one))
            if ahead >= 8:
                view.on_event(ended(stages[ahead - 8]))
    finally:
        done.set()
        for drawer in drawers:
            drawer.join()
        sys.setswitchinterval(switch)
    assert not faults
    assert "392 done, 8 running, 0 failed, 0 cached, 0 waiting" in view.table().title


def test_nothing_is_known_of_the_time_left_until_a_stage_of_its_kind_was_timed():
    left = TimeLeft([stage("a"), stage("b")], {}, slots=1, device="cpu")
    assert left.seconds({}) is None
    left.ended(stage("a"), 10.0, done=True)
    assert left.seconds({}) == 10.0  # b is expected to take what its kind took


def test_the_time_left_is_what_is_expected_less_what_has_run_over_the_slots():
    known, long, unknown = stage("known"), stage("long"), stage("unknown")
    timings = {
        known.timing_name("cuda:0"): 10.0,
        long.timing_name("cuda"): 30.0,
        "quantize:other:x:y": 1000.0,
    }
    left = TimeLeft([known, long, unknown], timings, slots=2, device="cuda:1")
    # 10 + 30 + their mean 20 for the unknown one
    assert left.seconds({}) == pytest.approx(60 / 2)
    assert left.seconds({"known": 4.0}) == pytest.approx((6 + 30 + 20) / 2)
    assert left.seconds({"known": 25.0}) == pytest.approx((0 + 30 + 20) / 2)  # late, not negative
    left.ended(known, 40.0, done=True)
    assert left.seconds({}) == pytest.approx((30 + 35) / 2)
    assert left.seen == {known.timing_name("cuda:0"): 40.0}


def test_a_failed_stage_says_nothing_about_how_long_others_take():
    left = TimeLeft([stage("a"), stage("b")], {}, slots=1, device="cpu")
    left.ended(stage("a"), 0.1, done=False)
    assert left.seconds({}) is None
    assert left.seen == {}


def test_nothing_is_left_when_all_have_ended():
    left = TimeLeft([stage("a")], {}, slots=4, device="cpu")
    left.ended(stage("a"), 1.0, done=False)
    assert left.seconds({}) == 0.0


def test_a_stage_that_another_run_makes_is_told_once_and_shown(view_of, store):
    one, own = stage("one"), stage("own")
    context = RunContext(store.root)
    elsewhere = {"process": 123, "host": "far", "since": time.mktime((2026, 1, 2, 14, 3, 0, 0, 0, -1))}
    with store.claim(one.key, elsewhere), store.claim(own.key, dataclasses.asdict(context.claimant)):
        with view_of([one, own]) as view:
            view.on_event(started(one))
            view.on_event(started(own))
            time.sleep(2.5)
        assert view_of.text.getvalue() == (
            "waiting for process 123 on far, which makes evaluate: one since 14:03\n"
        )
        assert drawn(view).count("waiting for process 123 on far, which makes this stage since 14:03") == 1
    assert "waiting for" not in drawn(view)
