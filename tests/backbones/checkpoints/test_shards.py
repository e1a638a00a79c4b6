"""An index and its shards are one set of weights."""

import json

import pytest
import safetensors.torch
import torch

from backbones import SPECS, WeightsError, check_weights, find_weights, load_backbone, sha256_of_weights

SPEC = SPECS["digits_vit"]
STATE = safetensors.torch.load_file(find_weights(SPEC))
NAMES = list(STATE)


def write_shards(folder, kind="safetensors", **changes):
    """Two shards and their index as transformers writes them; returns the index."""
    stem, save = (
        ("model", safetensors.torch.save_file) if kind == "safetensors" else ("pytorch_model", torch.save)
    )
    half = len(NAMES) // 2
    weight_map = {}
    for number, names in ((1, NAMES[:half]), (2, NAMES[half:])):
        shard = f"{stem}-0000{number}-of-00002.{kind}"
        save({name: STATE[name].clone() for name in names}, folder / shard)
        weight_map |= dict.fromkeys(names, shard)
    index = folder / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map | changes}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("given", ["folder", "index"])
def test_a_folder_and_its_index_load(tmp_path, kind, given):
    index = write_shards(tmp_path, kind)
    found = find_weights(SPEC, given=tmp_path if given == "folder" else index)
    assert found == index
    assert check_weights("digits_vit", found) == ""
    teacher = load_backbone("digits_vit", found)
    loaded = teacher.model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in STATE.items())
    assert teacher.weights_sha256 == sha256_of_weights("digits_vit", found)


@pytest.mark.parametrize("number", [1, 2])
def test_the_hash_covers_every_shard(tmp_path, number):
    index = write_shards(tmp_path)
    before = sha256_of_weights("digits_vit", index)
    assert sha256_of_weights("digits_vit", index) == before
    shard = tmp_path / f"model-0000{number}-of-00002.safetensors"
    tensors = safetensors.torch.load_file(shard)
    first = next(iter(tensors))
    safetensors.torch.save_file({**tensors, first: tensors[first] + 1}, shard)
    assert sha256_of_weights("digits_vit", index) != before


def test_a_missing_shard_is_named(tmp_path):
    index = write_shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        WeightsError, match=r"its shard model-00002-of-00002.safetensors: there is no such file"
    ):
        check_weights("digits_vit", index)
    with pytest.raises(WeightsError, match=r"model-00002-of-00002.safetensors"):
        sha256_of_weights("digits_vit", index)


def test_a_damaged_shard_is_named(tmp_path):
    index = write_shards(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(WeightsError, match=r"its shard model-00001-of-00002.safetensors: .* Git LFS pointer"):
        check_weights("digits_vit", index)


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path):
    index = write_shards(tmp_path, absent="model-00001-of-00002.safetensors")
    with pytest.raises(WeightsError, match=r"model-00001-of-00002.safetensors does not hold absent"):
        check_weights("digits_vit", index)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/../../x", "..\\x", "C:\\x", "", 3])
def test_an_index_does_not_lead_outside_its_folder(tmp_path, name):
    index = write_shards(tmp_path, cls_token=name)
    with pytest.raises(WeightsError, match="a shard outside its folder"):
        check_weights("digits_vit", index)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}'])
def test_an_index_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match="cannot read the weights of digits_vit"):
        check_weights("digits_vit", tmp_path / "model.safetensors.index.json")


def test_a_folder_without_weights_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(WeightsError, match=r"a folder without model.safetensors.* \(it holds notes.txt\)"):
        find_weights(SPEC, given=tmp_path)


def without_index(folder, kind="safetensors"):
    folder.mkdir(exist_ok=True)
    write_shards(folder, kind).unlink()
    return folder


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("given", ["", "1", "2"])
def test_shards_without_an_index_load_by_their_folder_or_any_of_them(tmp_path, kind, given):
    stem = "model" if kind == "safetensors" else "pytorch_model"
    folder = without_index(tmp_path, kind)
    found = find_weights(SPEC, given=folder / f"{stem}-0000{given}-of-00002.{kind}" if given else folder)
    teacher = load_backbone("digits_vit", found)
    loaded = teacher.model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in STATE.items())
    first = find_weights(SPEC, given=folder)
    assert teacher.weights_sha256 == sha256_of_weights("digits_vit", first)


def test_shards_without_an_index_are_hashed_together(tmp_path):
    found = find_weights(SPEC, given=without_index(tmp_path))
    before = sha256_of_weights("digits_vit", found)
    safetensors.torch.save_file({"x": torch.ones(1)}, tmp_path / "model-00002-of-00002.safetensors")
    assert sha256_of_weights("digits_vit", found) != before


@pytest.mark.parametrize("lost", [1, 2])
def test_a_shard_that_is_missing_without_an_index_is_named(tmp_path, lost):
    (without_index(tmp_path) / f"model-0000{lost}-of-00002.safetensors").unlink()
    said = rf"of its 2 shards 1 are missing in {tmp_path}: model-0000{lost}-of-00002.safetensors$"
    with pytest.raises(WeightsError, match=said):
        check_weights("digits_vit", find_weights(SPEC, given=tmp_path))


def test_two_sets_of_shards_without_an_index_are_refused(tmp_path):
    without_index(tmp_path)
    without_index(tmp_path, "bin")
    with pytest.raises(WeightsError, match="holds several sets of shards and no index") as caught:
        find_weights(SPEC, given=tmp_path)
    assert f"--weights digits_vit={tmp_path}/model-00001-of-00002.safetensors" in str(caught.value)


def test_shards_that_hold_the_same_are_refused(tmp_path):
    without_index(tmp_path)
    name = NAMES[0]
    safetensors.torch.save_file({name: STATE[name]}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(WeightsError, match=f"two of its shards hold {name}, the second is model-00002"):
        check_weights("digits_vit", find_weights(SPEC, given=tmp_path))
