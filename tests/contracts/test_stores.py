"""What every store promises, over each implementation."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator

import pytest
import torch

from harness.errors import ArtifactError, UsageError
from harness.store import Store, open_store
from harness.store.uses import StoredPlan

STORES = {"folder": open_store}
"""Name -> what opens a store at a path. Another implementation is one more entry."""


@pytest.fixture(params=STORES)
def opened(request, tmp_path):
    """Opens the same store again, as another process would."""
    return lambda: STORES[request.param](tmp_path / "store")


@pytest.fixture
def store(opened) -> Store:
    return opened().create()


def test_an_artifact_comes_back_as_written(store, opened):
    store.write("k", {"a": torch.arange(6.0).reshape(2, 3)}, {"label": "x", "n": 3})
    for one in (store, opened()):
        assert one.meta("k") == {"label": "x", "n": 3}
        assert torch.equal(one.tensors("k")["a"], torch.arange(6.0).reshape(2, 3))
        assert one.holds("k")
        assert not one.is_damaged("k")
        assert one.verify("k") == {"label": "x", "n": 3}


def test_images_lie_apart_from_the_tensors_beside_them(store):
    images, student = {"images": torch.zeros(3)}, {"student.a": torch.ones(2)}
    store.write("both", student, {"n": 1}, images)
    store.write("set", images, {})
    assert store.tensors("both").keys() == student.keys()
    assert store.images("both").keys() == images.keys()
    assert store.images("set").keys() == store.tensors("set").keys() == images.keys()
    assert store.verify("both") == {"n": 1}
    store.write("both", student, {"n": 2})
    assert store.images("both").keys() == student.keys()


def test_slices_and_views_are_stored_as_they_look(store):
    whole = torch.arange(6.0).reshape(2, 3)
    store.write("k", {"turned": whole.T, "row": whole[1]}, {})
    assert torch.equal(store.tensors("k")["turned"], whole.T)
    assert torch.equal(store.tensors("k")["row"], whole[1])


def test_an_absent_artifact_is_named(store):
    assert not store.holds("nothing")
    assert not store.is_damaged("nothing")
    for read in (store.meta, store.tensors, store.verify):
        with pytest.raises(ArtifactError, match="no artifact nothing"):
            read("nothing")


def test_the_later_of_two_artifacts_under_one_key_counts(store):
    store.write("k", {"a": torch.zeros(2)}, {"n": 1})
    store.write("k", {"a": torch.ones(2)}, {"n": 2})
    assert store.meta("k") == {"n": 2}
    assert store.tensors("k")["a"].tolist() == [1, 1]


def test_what_cannot_be_written_leaves_the_old_artifact(store):
    store.write("k", {"a": torch.zeros(2)}, {"n": 1})
    with pytest.raises(TypeError):
        store.write("k", {"a": torch.ones(2)}, {"bad": object()})
    assert store.meta("k") == {"n": 1}
    assert store.tensors("k")["a"].tolist() == [0, 0]


def test_failures_are_remembered_until_cleared(store):
    assert store.failure("k") is None
    store.write_failure("k", {"status": "failed", "reason": "r"})
    assert store.failure("k") == {"status": "failed", "reason": "r"}
    store.clear_failure("k")
    store.clear_failure("k")
    assert store.failure("k") is None


def test_progress_is_there_while_a_stage_runs(store, opened):
    assert store.progress("k") is None
    store.write_progress("k", {"step": 3, "total": 9, "losses": {"a": 0.5}})
    assert opened().progress("k") == {"step": 3, "total": 9, "losses": {"a": 0.5}}
    store.clear_progress("k")
    store.clear_progress("k")
    assert store.progress("k") is None


def test_reports_and_the_request_to_stop_end_together(store, opened):
    assert store.reports("k") == {}
    store.write_reports("k", {1: 0.5, 10: 0.75})
    opened().ask_to_stop("k")
    assert opened().reports("k") == {1: 0.5, 10: 0.75}
    assert store.is_asked_to_stop("k")
    assert not store.is_asked_to_stop("other")
    store.clear_reports("k")
    assert store.reports("k") == {}
    assert not store.is_asked_to_stop("k")


def test_of_two_timings_the_latest_counts(store, opened):
    assert store.timings() == {}
    store.add_timings({"a": 1.0})
    opened().add_timings({"b": 2.0, "a": 3.0})
    assert store.timings() == {"a": 3.0, "b": 2.0}


def test_stores_of_one_place_are_equal_and_hash_alike(store, opened, tmp_path):
    assert store == opened()
    assert hash(store) == hash(opened())
    assert store != open_store(tmp_path / "other")
    assert store.root.is_absolute()


def test_claims_of_other_keys_do_not_wait(store):
    with store.claim("a", {}), store.claim("b", {}):
        pass


@contextlib.contextmanager
def claimed_elsewhere(store: Store, seconds: float) -> Iterator[int]:
    """Another process that holds `k` for some seconds; gives its id."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(store, ready, seconds))
    process.start()
    try:
        assert ready.wait(60)
        assert process.pid is not None
        yield process.pid
    finally:
        process.join(60)


def _hold(store, ready, seconds):
    with store.claim("k", {"process": 7, "host": "here"}):
        ready.set()
        time.sleep(seconds)
        store.write_failure("k", {"status": "failed", "reason": "held to its end"})


def test_a_claim_waits_while_another_process_holds_it(store):
    with claimed_elsewhere(store, seconds=0.3), store.claim("k", {}):
        assert store.failure("k") == {"status": "failed", "reason": "held to its end"}


def test_a_claim_says_who_holds_it_while_it_is_held(store, opened):
    assert store.claimant("k") is None
    with claimed_elsewhere(store, seconds=120) as process:
        assert opened().claimant("k") == {"process": 7, "host": "here"}
        assert store.claimant("other") is None
        os.kill(process, signal.SIGKILL)
        with store.claim("k", {}):
            pass
        assert store.claimant("k") is None
    with store.claim("k", {"process": 8}):
        assert store.claimant("k") == {"process": 8}


def test_a_traceback_belongs_to_its_failure(store):
    store.write_failure("k", {"status": "failed", "reason": "r"}, "Traceback ...")
    file = store.traceback_file("k")
    assert file is not None
    assert file.read_text() == "Traceback ..."
    store.write_failure("k", {"status": "failed", "reason": "another"})
    assert store.traceback_file("k") is None
    store.write_failure("k", {"status": "failed", "reason": "r"}, "Traceback ...")
    store.clear_failure("k")
    assert store.traceback_file("k") is None


def test_a_claim_of_a_killed_process_is_free_at_once(store):
    with claimed_elsewhere(store, seconds=120) as process:
        os.kill(process, signal.SIGKILL)
        with store.claim("k", {}):
            assert store.failure("k") is None


def test_what_is_removed_is_gone_at_once_and_its_room_is_told(store, opened):
    store.write("k", {"a": torch.zeros(250)}, {"n": 1}, {"images": torch.zeros(250)})
    store.write("other", {}, {})
    assert store.stored_keys() == ["k", "other"]
    assert store.made_at("k") == pytest.approx(time.time(), abs=60)
    size = store.size("k")
    assert size > 2 * 250 * 4
    assert opened().remove("k") == size
    assert not store.holds("k")
    assert store.stored_keys() == ["other"]
    assert (store.size("k"), store.made_at("k"), store.remove("k")) == (0, 0, 0)


def test_plans_are_remembered_and_the_same_one_again_replaces_itself(store, opened):
    plan = StoredPlan("mine", ["a", "b"], {"a": ["b"], "b": []})
    store.write_plan(plan)
    opened().write_plan(dataclasses.replace(plan, finished=True))
    store.write_plan(StoredPlan("yours", ["c"], {"c": []}))
    found = {one.suite: dataclasses.replace(one, begun_at=0.0) for one in store.plans()}
    assert found == {
        "mine": dataclasses.replace(plan, finished=True),
        "yours": StoredPlan("yours", ["c"], {"c": []}),
    }
    assert len(store.plans()) == 2


def test_who_makes_room_is_alone_with_the_store(store, opened):
    with store.in_use(), opened().in_use(), pytest.raises(UsageError, match="in use"), opened().alone():
        pass
    with store.alone(), pytest.raises(UsageError, match="in use"), opened().alone():
        pass
    with store.alone():
        pass
