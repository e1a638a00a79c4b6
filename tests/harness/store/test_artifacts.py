"""Artifacts in a folder: what lies there, and how damage is noticed."""

from __future__ import annotations

import json

import pytest
import torch

from harness.errors import ArtifactError
from harness.store.artifacts import ArtifactFolder


@pytest.fixture
def store(tmp_path) -> ArtifactFolder:
    return ArtifactFolder(tmp_path / "store")


@pytest.mark.parametrize("name", ["data.safetensors", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damage_is_noticed_until_the_artifact_is_written_again(store, name, damage):
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
    with pytest.raises(ArtifactError, match="artifact k"):
        store.tensors("k")
    store.write("k", {"a": torch.ones(100)}, {"n": 1})
    assert store.holds("k")


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


def test_a_torn_failure_counts_as_absent(store):
    store.write_failure("k", {"reason": "r"})
    (store.root / "failures" / "k.json").write_text("")
    assert store.failure("k") is None


def test_the_description_is_readable_json(store):
    store.write("k", {"a": torch.ones(1)}, {"n": 1})
    body = json.loads((store.root / "artifacts" / "k" / "meta.json").read_text())
    assert set(body) == {"meta", "data_sha256", "meta_sha256"}
    assert body["meta"] == {"n": 1}
