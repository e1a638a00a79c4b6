from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import pytest
import torch

from harness.errors import ArtifactError
from harness.store import Store, open_store


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path / "store").create()


def test_an_artifact_comes_back_as_written(store):
    store.write("k", {"a": torch.arange(6.0).reshape(2, 3)}, {"label": "x", "n": 3})
    assert store.meta("k") == {"label": "x", "n": 3}
    assert torch.equal(store.tensors("k")["a"], torch.arange(6.0).reshape(2, 3))
    assert store.holds("k")
    assert not store.is_damaged("k")


def test_an_absent_artifact_is_named(store):
    assert not store.holds("nothing")
    with pytest.raises(ArtifactError, match="no artifact nothing"):
        store.meta("nothing")


@pytest.mark.parametrize("name", ["data.safetensors", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damage_is_noticed_and_can_be_mended(store, name, damage):
    store.write("k", {"a": torch.ones(100)}, {"n": 1})
    path = store.root / "artifacts" / "k" / name
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        position = content.index(b"1", 5) if name == "meta.json" else len(content) - 1
        content[position] ^= 1
    path.write_bytes(bytes(content))
    assert not store.holds("k")
    assert store.is_damaged("k")
    store.write("k", {"a": torch.ones(100)}, {"n": 1})
    assert store.holds("k")


def test_nothing_half_written_is_left_when_writing_fails(store):
    with pytest.raises(TypeError):
        store.write("k", {"a": torch.ones(1)}, {"bad": object()})
    assert not store.holds("k")
    assert list((store.root / "partial").iterdir()) == []


def test_failures_are_remembered_until_cleared(store):
    assert store.failure("k") is None
    store.write_failure("k", {"status": "failed", "reason": "r"})
    assert store.failure("k") == {"status": "failed", "reason": "r"}
    store.clear_failure("k")
    assert store.failure("k") is None


def test_timings_merge(store):
    store.add_timings({"a": 1.0})
    store.add_timings({"b": 2.0, "a": 3.0})
    assert store.timings() == {"a": 3.0, "b": 2.0}


def test_torn_side_files_count_as_absent(store):
    (store.root / "timings.json").write_text("{")
    (store.root / "failures" / "k.json").write_text("")
    assert store.timings() == {}
    assert store.failure("k") is None


def _hold(root, ready):
    with open_store(root).claim("k"):
        ready.set()
        time.sleep(60)


def test_a_claim_of_a_killed_process_is_free_at_once(store):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(store.root, ready))
    process.start()
    try:
        assert ready.wait(30)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join(10)
    with store.claim("k"):
        pass


def test_meta_is_readable_json(store):
    store.write("k", {"a": torch.ones(1)}, {"n": 1})
    body = json.loads((store.root / "artifacts" / "k" / "meta.json").read_text())
    assert set(body) == {"meta", "data_sha256", "meta_sha256"}
