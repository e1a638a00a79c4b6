"""A stage ends as done, cached, failed, out of memory or stopped, and leaves the store in order."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from harness.stages.base import Artifact, Stage
from harness.stages.facts import read_facts
from harness.stages.kinds import StageKind, register_kind
from harness.stages.run_stage import keep_failure, run_stage
from harness.store import Store, open_store
from tests.harness.fake_stages import FakeFacts, context_of, runs_of, stage


@pytest.fixture
def context(tmp_path):
    return context_of(tmp_path / "store")


@pytest.fixture
def store(context) -> Store:
    return open_store(context.store)


def test_a_stage_publishes_its_artifact_with_where_it_was_made(context, store):
    a = stage("a")
    result = run_stage(a, context)
    assert (result.key, result.status, result.reason) == (a.key, "done", "")
    assert result.seconds > 0
    assert store.tensors(a.key)["value"].tolist() == [1.0]
    environment = read_facts(store, a.key, FakeFacts).environment
    assert environment.threads == context.threads
    assert torch.__version__.startswith(environment.packages["torch"])
    assert environment.device.startswith("cpu")
    assert store.meta(a.key)["kind"] == "work"
    assert store.meta(a.key)["seconds"] == result.seconds


def test_what_is_there_is_not_made_again(context, store):
    a = stage("a")
    run_stage(a, context)
    result = run_stage(a, context)
    assert (result.status, result.seconds) == ("cached", 0.0)
    assert runs_of(store, "a") == 1


def test_a_damaged_artifact_is_made_again(context, store):
    a = stage("a")
    run_stage(a, context)
    (store.root / "artifacts" / a.key / "data.safetensors").write_bytes(b"torn")
    assert run_stage(a, context).status == "done"
    assert store.holds(a.key)
    assert runs_of(store, "a") == 2


def test_a_failure_is_one_line_and_remembered_until_it_succeeds(context, store):
    bad = stage("bad", "fails")
    result = run_stage(bad, context)
    assert (result.status, result.reason) == ("failed", "ValueError: planted failure")
    assert store.failure(bad.key) == {"status": "failed", "reason": result.reason, "label": "bad"}
    assert not store.holds(bad.key)
    assert run_stage(dataclasses.replace(bad, kind="work"), context).status == "done"
    assert store.failure(bad.key) is None


def test_running_out_of_memory_is_a_status_of_its_own(context, store):
    hungry = stage("hungry", "exhausts_memory")
    assert run_stage(hungry, context).status == "out_of_memory"
    failure = store.failure(hungry.key)
    assert failure is not None
    assert failure["status"] == "out_of_memory"


@pytest.mark.parametrize(
    ("kind", "parts", "status", "tries"),
    [
        ("needs_parts", 4, "done", 4),  # in 1, 2 and 4 parts; the last tries twice to leave its mark
        ("needs_parts", 64, "out_of_memory", 6),  # in 1, 2, ... 32 parts
        ("needs_parts_but_cannot", 4, "out_of_memory", 1),
    ],
)
def test_memory_that_runs_out_is_met_with_parts_where_the_kind_has_them(
    context, store, kind, parts, status, tries
):
    result = run_stage(stage("hungry", kind, parts=parts), context)
    assert (result.status, runs_of(store, "hungry")) == (status, tries)
    if status == "done":
        assert (store.root / "parts").read_text() == "4"


def test_an_unknown_kind_is_a_failure_with_its_name(context):
    result = run_stage(stage("a", "wrok"), context)
    assert result.status == "failed"
    assert "unknown stage kind 'wrok'" in result.reason


def test_facts_of_another_class_are_a_failure(context, store):
    def confused(stage, context, store, progress) -> Artifact:
        from tests.harness.fake_stages import work

        return work(stage, context, store, progress)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class OtherFacts(FakeFacts):
        pass

    register_kind(StageKind("confused", confused, OtherFacts))
    result = run_stage(stage("a", "confused"), context)
    assert result.status == "failed"
    assert "gives OtherFacts, not FakeFacts" in result.reason


def test_a_stage_that_is_asked_to_stop_leaves_neither_artifact_nor_failure(context, store):
    slow = stage("slow", "reports", seconds=0.0)

    def ask() -> None:
        if len(store.reports(slow.key)) == 3:
            store.ask_to_stop(slow.key)

    result = run_stage(slow, context, on_report=ask)
    assert (result.status, result.reason) == ("stopped", "the search asked it to stop")
    assert store.reports(slow.key) == {0: 0.0, 1: 1.0, 2: 2.0}
    assert not store.holds(slow.key)
    assert store.failure(slow.key) is None


def test_an_earlier_request_to_stop_is_forgotten(context, store):
    slow = stage("slow", "reports", seconds=0.0)
    store.create().ask_to_stop(slow.key)
    assert run_stage(slow, context).status == "done"
    assert len(store.reports(slow.key)) == 20


def test_no_progress_is_left_of_a_stage_that_ended(context, store):
    for one in (stage("a"), stage("bad", "fails")):
        store.create().write_progress(one.key, {"step": 1, "total": 2})
        run_stage(one, context)
        assert store.progress(one.key) is None


def test_stages_of_a_kind_and_size_share_a_name_for_their_timings():
    def name(**settings) -> str:
        one = Stage("quantize", "", {"backbone": "b", "engine": "e", **settings}, {}, "k")
        return one.timing_name("cpu")

    assert name(config={"iterations": 5, "rate": 0.1}) == name(config={"iterations": 5, "rate": 0.2})
    assert name(config={"iterations": 5}) != name(config={"iterations": 6})
    assert name(engine_config={"epochs": 5}) != name(engine_config={"epochs": 6})
    assert name(samples="of 400 images") != name(samples="of 50,000 images")
    assert (
        stage("a").timing_name("cuda:0") == stage("a").timing_name("cuda:1") != stage("a").timing_name("cpu")
    )
    assert name().startswith("quantize:e:b:")
    assert name(synthesizer="s").startswith("quantize:e+s:b:")


def test_a_failure_keeps_the_end_of_its_traceback_until_a_success(context, store):
    bad = stage("bad", "fails")
    run_stage(bad, context)
    (file,) = [store.traceback_file(bad.key)]
    assert file == store.root / "failures" / f"{bad.key}.txt"
    text = file.read_text()
    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith("ValueError: planted failure\n")
    assert "fake_stages.py" in text
    keep_failure(bad, store, "failed", "longer", "x" * 30_000 + "the end")
    assert len(file.read_text()) == 20_000
    assert file.read_text().endswith("the end")
    keep_failure(bad, store, "failed", "the worker process died 2 times")
    assert store.traceback_file(bad.key) is None
    run_stage(bad, context)
    run_stage(dataclasses.replace(bad, kind="work"), context)
    assert store.traceback_file(bad.key) is None


def test_a_stage_beyond_its_limit_ends_when_it_next_says_how_far_it_is(context, store):
    slow = stage("slow", "sleeps", seconds=20)
    result = run_stage(slow, context, limit=0.3)
    assert result.status == "failed"
    assert re.fullmatch(
        r"timed out after \d+ s( at its first sign of life beyond 0 s)?; "
        "--stage-timeout sets another limit, 0 none",
        result.reason,
    )
    assert store.failure(slow.key)["reason"] == result.reason
    assert not store.holds(slow.key)
