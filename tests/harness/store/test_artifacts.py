"""Artifacts in a folder: what lies there, and how damage is noticed."""

from __future__ import annotations

import json

import pytest
import torch

from harness.errors import Damaged
from harness.store.artifacts import ArtifactFolder


@pytest.fixture
def store(tmp_path) -> ArtifactFolder:
    return ArtifactFolder(tmp_path / "store")


@pytest.mark.parametrize("name", ["data.safetensors", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "lose"])
def test_damage_is_noticed_until_the_artifact_is_written_again(store, name, damage):
    store.write("k", {"a": torch.ones(100)}, {"n": 1})
    path = store.root / "artifacts" / "k" / name
    content = bytearray(path.read_bytes())
    if damage in ("empty", "lose"):
        content = bytearray()
    elif damage == "cut":
        content = content[: len(content) // 2]
    else:
        position = content.index(b"1", 5) if name == "meta.json" else len(content) - 1
        content[position] ^= 1
    path.write_bytes(bytes(content))
    if damage == "lose":
        path.unlink()
    assert not store.holds("k")
    assert store.is_damaged("k")
    with pytest.raises(Damaged, match=rf"^damaged: {path.parent}/[a-z.]+; delete it and run again$"):
        store.tensors("k")
    store.write("k", {"a": torch.ones(100)}, {"n": 1})
    assert store.holds("k")


def test_lost_images_are_damage_that_who_reads_the_tensors_does_not_meet(store):
    store.write("k", {"a": torch.ones(1)}, {}, {"images": torch.ones(1)})
    (store.root / "artifacts" / "k" / "images.safetensors").unlink()
    assert store.is_damaged("k")
    assert store.tensors("k")["a"].tolist() == [1]
    with pytest.raises(Damaged, match=r"images\.safetensors"):
        store.images("k")


def test_a_lost_file_is_damage(store):
    store.write("k", {"a": torch.ones(1)}, {})
    (store.root / "artifacts" / "k" / "data.safetensors").unlink()
    assert store.is_damaged("k")
    assert store.meta("k") == {}


def test_nothing_half_written_is_left_when_writing_fails(store):
    with pytest.raises(TypeError):
        store.write("k", {"a": torch.ones(1)}, {"bad": object()})
    assert not store.holds("k")
    assert list((store.root / "partial").iterdir()) == []


def test_nothing_is_left_of_an_artifact_that_was_replaced(store):
    for n in (1, 2):
        store.write("k", {"a": torch.ones(1)}, {"n": n})
    assert list((store.root / "partial").iterdir()) == []
    assert [folder.name for folder in (store.root / "artifacts").iterdir()] == ["k"]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', "{}", '{"status": "failed"}', "[" * 9999])
def test_a_failure_that_cannot_be_read_is_one_that_says_so(store, content):
    store.write_failure("k", {"status": "failed", "reason": "r"})
    file = store.root / "failures" / "k.json"
    file.write_text(content)
    assert store.failure("k") == {
        "status": "failed",
        "reason": f"damaged: {file}; delete it and run again",
    }
    store.write_failure("k", {"status": "failed", "reason": "again"})
    assert store.failure("k") == {"status": "failed", "reason": "again"}


def test_the_description_is_readable_json(store):
    store.write("k", {"a": torch.ones(1)}, {"n": 1})
    body = json.loads((store.root / "artifacts" / "k" / "meta.json").read_text())
    assert set(body) == {"meta", "data_sha256", "meta_sha256"}
    assert body["meta"] == {"n": 1}
