"""What a person sees of a search: what counts, what is best, what runs, in any terminal."""

from __future__ import annotations

import dataclasses
import io
import sys
import threading
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from rich.console import Console

from harness.stages.base import Stage
from harness.stages.progress import StageProgress
from harness.store import open_store
from harness.tuning import studies
from harness.tuning.search import Ended, Limits, Try
from harness.tuning.view import SearchView

SPACE: Any = SimpleNamespace(defaults={"engine.damage": 0.3})


def trial(value: float | None, damage: float = 0.3, state: TrialState = TrialState.COMPLETE, **attributes):
    return create_trial(
        state=state,
        value=value,
        params={"engine.damage": damage},
        distributions={"engine.damage": FloatDistribution(0, 10000)},
        user_attrs=attributes,
    )


@pytest.fixture
def study():
    """Four tries that count and ended, one that runs, one that was late."""
    made = optuna.create_study(direction="maximize")
    made.add_trial(trial(90.25, seconds=12.0))
    made.add_trial(trial(97.125, damage=0.00012, seconds=3600.0))
    made.add_trial(trial(None, state=TrialState.FAIL))
    made.add_trial(trial(50.0, state=TrialState.PRUNED))
    made.add_trial(trial(None, state=TrialState.RUNNING))
    made.add_trial(trial(None, state=TrialState.FAIL, late=True))
    return made


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path).create()


def view_of(store, ended, console: Console, **settings) -> SearchView:
    limits = settings.pop("limits", Limits(24))
    return SearchView(
        "a study", ["accuracy"], ["maximize"], SPACE, store, console, limits=limits, ended=ended, **settings
    )


def tried(number: int, damage: float = 1234.5) -> Try:
    key = f"stage{number}"
    asked: Any = SimpleNamespace(number=number, params={"engine.damage": damage})
    stage = Stage("quantize", key, {}, {}, key)
    return Try(asked, (), {key: stage}, {key}, started=0.0)


def drawn(view: SearchView, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(view.table())
    return console.file.getvalue()


def test_a_resumed_search_counts_what_ended_before_from_its_first_moment(store, study):
    view = view_of(store, studies.ended(study), Console(file=io.StringIO()))
    assert "a study: 4 of 24 tries ended, best accuracy 97.12 (try 1), 0 running" in drawn(view)


def test_off_a_terminal_a_resumed_search_says_where_it_stands(store, study):
    console = Console(file=io.StringIO(), width=160)
    with view_of(store, studies.ended(study), console) as view:
        study.add_trial(trial(98.0))
        ended = Ended(dataclasses.replace(tried(6), started=view._now() - 90.0), "complete", (98.0,))
        view.on_end(ended, studies.ended(study))
    assert console.file.getvalue().splitlines() == [
        "going on: 4 of 24 tries ended, best accuracy 97.12 (try 1)",
        "5 of 24: try 6 complete accuracy 98.00, 90s: damage 1234",
    ]


def test_a_time_budget_counts_what_was_searched_before(store):
    now = 0.0
    console = Console(file=io.StringIO())
    view = view_of(store, (), console, limits=Limits(24, 300.0), seconds_before=100.0, now=lambda: now)
    now = 20.0
    assert "2:00 of 5:00 searched" in drawn(view)


def test_ray_is_awaited_until_a_worker_has_a_stage(store):
    view = view_of(store, (), Console(file=io.StringIO()))
    view.on_wait("Ray")
    assert "0 running, waiting for Ray" in drawn(view)
    view.follow({3: tried(3)})
    assert "1 running, waiting for Ray" in drawn(view)
    assert "starting" in drawn(view)
    StageProgress(store, "stage3").begin()
    assert "waiting for" not in drawn(view)
    store.write_progress("stage3", {"step": 5, "total": 9})
    assert "running quantize 5/9" in drawn(view)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_numbers_are_whole_in_any_terminal(store, study, width):
    view = view_of(store, studies.ended(study), Console(file=io.StringIO()))
    view.follow({4: tried(4)})
    store.write_progress("stage4", {"step": 123456, "total": 8750000})
    text = drawn(view, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for figure in ("97.12", "90.25", "50.00", "123456/8750000", "0.00012"):
        assert figure in text
    assert "1:00:00" in text or "Left out" in text


def test_the_table_may_be_drawn_while_tries_start_report_and_end(store):
    view = view_of(store, (), Console(file=io.StringIO()))
    faults: list[BaseException] = []
    drawn: list[object] = []
    done = threading.Event()

    def draw() -> None:
        try:
            while not done.is_set():
                drawn.append(view.table())
        except BaseException as error:
            faults.append(error)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    drawers = [threading.Thread(target=draw) for _ in range(3)]
    running: dict[int, Try] = {number: tried(number) for number in range(30)}
    view.follow(running)
    try:
        for drawer in drawers:
            drawer.start()
        for number in range(30, 100_000):
            running[number] = tried(number)
            del running[number - 30]
            running[number].reported[number] = 1.0
            view.follow(running)
            if faults or len(drawn) > 1000:
                break
    finally:
        done.set()
        for drawer in drawers:
            drawer.join()
        sys.setswitchinterval(switch)
    assert not faults
    assert "30 running" in view.table().title
