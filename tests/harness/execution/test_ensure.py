"""What the store lacks is made once, and nothing else is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.errors import HarnessError
from harness.execution.ensure import ensure, require
from harness.execution.schedulers.base import Work
from harness.execution.schedulers.inline import InlineScheduler
from harness.stages.base import StageResult
from harness.store import Store, open_store
from tests.harness.fake_stages import context_of, runs_of, stage


class Refusing:
    """A scheduler for when there is nothing to run."""

    def run(self, work: Work) -> dict[str, StageResult]:
        raise AssertionError(f"asked to run {len(work.stages)} stages")

    def close(self) -> None:
        pass


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path).create()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=160)


def test_only_what_the_store_lacks_is_run_and_told_of(store, console):
    known, new = stage("known"), stage("new")
    context = context_of(store.root)
    ensure([known], context, store, InlineScheduler(), console)
    results = ensure([known, new], context, store, InlineScheduler(), console)
    assert {key: result.status for key, result in results.items()} == {new.key: "done"}
    assert runs_of(store, "known") == runs_of(store, "new") == 1
    assert [line.split(",")[0] for line in console.file.getvalue().splitlines()] == [
        "1/1 work: known",
        "1/1 work: new",
    ]


def test_a_scheduler_without_work_is_left_alone(store, console):
    known, context = stage("known"), context_of(store.root)
    require(known, context, store, InlineScheduler(), console)
    assert ensure([known], context, store, Refusing(), console) == {}
    require(known, context, store, Refusing(), console)


def test_what_a_stage_took_serves_the_next_estimate(store, console):
    one = stage("one")
    result = ensure([one], context_of(store.root), store, InlineScheduler(), console)[one.key]
    assert store.timings() == {one.timing_name("cpu"): pytest.approx(result.seconds, abs=0.01)}


def test_a_required_stage_that_fails_raises_its_reason(store, console):
    with pytest.raises(HarnessError, match="bad: ValueError: planted failure"):
        require(stage("bad", "fails"), context_of(store.root), store, InlineScheduler(), console)
