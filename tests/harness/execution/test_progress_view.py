"""What a person sees of a run."""

from __future__ import annotations

import dataclasses
import io
import sys
import threading
import time

import pytest
from rich.console import Console

from harness.execution.progress_view import RunView
from harness.execution.schedulers.base import Event
from harness.stages.base import RunContext, Stage, StageResult
from harness.stages.progress import StageProgress
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


def began(one: Stage, store: Store) -> None:
    """Say what a worker says as soon as it has the stage."""
    StageProgress(store, one.key).begin()


def drawn(view: RunView, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
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
        "1/4 evaluate: good, 1s",
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
    assert row.split() == ["synthesize", "first", "30/200", "bns", "0.1235", "tv", "12", "0:00"]
    assert any("second" in line for line in lines)
    view.on_event(ended(first))
    assert "first" not in drawn(view)


def test_the_title_counts_every_stage_once(view_of, store):
    names = ("good", "bad", "child", "known", "running", "waiting")
    good, bad, child, known, running, _ = stages = [stage(name) for name in names]
    view = view_of(stages, cached=3)
    view.on_event(started(running))
    began(running, store)
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
    assert "392 done, 0 running, 0 failed, 0 cached, 8 waiting" in view.table().title


def test_ray_is_awaited_until_a_worker_has_a_stage(view_of, store):
    one, other = stages = [stage("one"), stage("other")]
    view = view_of(stages)
    assert "waiting for" not in view.table().title
    view.on_wait("Ray")
    assert "0 running, 0 failed, 0 cached, 2 waiting for Ray" in view.table().title
    view.on_event(started(one))
    assert "0 running, 0 failed, 0 cached, 2 waiting for Ray" in view.table().title
    assert "starting" in drawn(view)
    began(one, store)
    assert "1 running, 0 failed, 0 cached, 1 waiting  " in view.table().title
    view.on_event(ended(one))
    view.on_event(started(other))
    assert "waiting for Ray" not in view.table().title


def test_the_time_left_follows_the_steps_and_is_never_nothing(store):
    one, now = stage("one"), 0.0
    store.add_timings({one.timing_name("cpu"): 18.0})
    view = RunView([one], 0, store, 1, Console(file=io.StringIO()), RunContext(store.root), now=lambda: now)
    view.on_event(started(one))
    now = 5.0
    began(one, store)
    assert "0:05 elapsed, 0:18 left" in view.table().title
    now = 45.0
    store.write_progress(one.key, {"step": 50, "total": 320, "losses": {}})
    assert "0:45 elapsed, 3:36 left" in view.table().title  # 40 seconds for 50 of 320 steps
    store.write_progress(one.key, {"step": 320, "total": 320, "losses": {}})
    assert "0:01 left" in view.table().title
    view.on_event(ended(one))
    assert "0:00 left" in view.table().title


def test_a_time_left_that_nothing_is_known_of_is_unknown(view_of, store):
    one, timed = stage("one"), stage("timed", "quantize")
    view = view_of([one])
    view.on_event(started(one))
    began(one, store)
    assert "time left unknown" in view.table().title
    store.add_timings({timed.timing_name("cpu"): 60.0})
    assert "at least 1:00 left" in view_of([one, timed]).table().title


@pytest.mark.parametrize("width", [60, 80, 120])
def test_steps_and_times_are_whole_in_any_terminal(view_of, store, width):
    long = stage(
        "block_reconstruction_with_a_long_name (lsq_qat) maskrcnn_swin_tiny w4a4 seed 12345", "quantize"
    )
    view = view_of([long])
    view.on_event(started(long))
    store.write_progress(
        long.key, {"step": 123456, "total": 8750000, "losses": {"kl": 0.00012361, "bns": 1234.0}}
    )
    text = drawn(view, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for figure in ("123456/8750000", "12345", "w4a4"):
        assert figure in text
    assert ("0.0001236" in text and "1234" in text) or ("Left out at" in text and "losses" in text)


def test_a_label_is_shown_as_it_is(view_of):
    odd = stage("[bold]odd[/bold] :cat: [red")
    view = view_of([odd])
    view.on_event(started(odd))
    assert "[bold]odd[/bold] :cat: [red" in drawn(view)


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
