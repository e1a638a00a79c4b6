"""What the store lacks is made once, and nothing else is."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from harness.errors import HarnessError
from harness.execution.ensure import Gate, ensure, require
from harness.execution.schedulers.base import Progression, Work
from harness.execution.schedulers.inline import InlineScheduler
from harness.stages.base import Stage, StageResult
from harness.stages.run_stage import run_stage
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


REFERENCES = tuple(stage(f"reference {n}") for n in (1, 2))
IMAGES = stage("images", "synthesize")
BOUND = dataclasses.replace(stage("bound"), after=(REFERENCES[0].key,))
STUDENT = dataclasses.replace(stage("student", parents=(IMAGES,)), after=tuple(one.key for one in REFERENCES))


class Wide:
    """Begins all that may begin, then ends what runs, one by one: what Ray does with workers enough."""

    def __init__(self) -> None:
        self.began: list[list[str]] = []

    def run(self, work: Work) -> dict[str, StageResult]:
        progression, running = Progression(work), list[Stage]()
        while True:
            self.began.append([])
            while (found := progression.start_next()) is not None:
                running.append(found)
                self.began[-1].append(found.label)
            if not running:
                return progression.results
            one = running.pop(0)
            progression.end(run_stage(dataclasses.replace(one, kind="work"), work.context))

    def close(self) -> None:
        pass


ALL = (STUDENT, BOUND, IMAGES, *REFERENCES)


def test_first_images_are_made_beside_the_references_and_students_wait_for_the_gate(store, console):
    checked = []
    gate = Gate(
        frozenset(one.key for one in REFERENCES), lambda: checked.append(store.holds(REFERENCES[1].key))
    )
    wide = Wide()
    results = ensure(ALL, context_of(store.root), store, wide, console, gate=gate)
    assert {result.status for result in results.values()} == {"done"}
    assert len(results) == 5
    assert wide.began[0] == ["reference 1", "reference 2", "images"]
    assert wide.began[1] == []  # one reference has ended; the student that waits for it alone does not begin
    assert sorted(label for labels in wide.began[2:] for label in labels) == ["bound", "student"]
    assert checked == [True]


def test_a_gate_that_does_not_pass_ends_the_run_before_any_student(store, console):
    def refuse() -> None:
        raise HarnessError("planted")

    gate = Gate(frozenset(one.key for one in REFERENCES), refuse)
    wide = Wide()
    with pytest.raises(HarnessError, match="planted"):
        ensure(ALL, context_of(store.root), store, wide, console, gate=gate)
    assert [label for labels in wide.began for label in labels] == ["reference 1", "reference 2", "images"]


def test_one_at_a_time_the_gate_comes_before_the_images(store, console):
    gate = Gate(
        frozenset(one.key for one in REFERENCES), lambda: (_ for _ in ()).throw(HarnessError("planted"))
    )
    with pytest.raises(HarnessError, match="planted"):
        ensure(ALL, context_of(store.root), store, InlineScheduler(), console, gate=gate)
    assert runs_of(store, "images") == 0
    assert all(store.holds(one.key) for one in REFERENCES)


def test_shards_of_first_images_are_made_beside_the_references_too(store, console):
    shard = stage("shard of images", "shard")
    gate = Gate(frozenset(one.key for one in REFERENCES), lambda: None)
    wide = Wide()
    ensure((shard, *REFERENCES), context_of(store.root), store, wide, console, gate=gate)
    assert wide.began[0] == ["reference 1", "reference 2", "shard of images"]
