"""Finding, hashing and loading of weights, each fault provoked."""

import hashlib
import re

import pytest
import safetensors.torch
import torch

from backbones import SPECS, WeightsError, find_weights, load_backbone, sha256_of_file
from backbones.loading import build_model

VIT = SPECS["digits_vit"]
SWIN = SPECS["digits_swin"]
SHIPPED = find_weights(VIT)


def test_a_loaded_teacher_is_frozen_hashed_and_in_evaluation_mode():
    teacher = load_backbone("digits_vit", SHIPPED)
    assert teacher.spec is VIT
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert teacher.weights_sha256 == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert teacher.num_classes == 10
    assert teacher.device == torch.device("cpu")


def test_prefix_tokens_are_the_cls_token_of_vit_alone():
    assert load_backbone("digits_vit", SHIPPED).prefix_tokens == 1
    assert load_backbone("digits_swin", find_weights(SWIN)).prefix_tokens == 0


def test_pixel_range_is_black_and_white_in_normalized_space():
    low, high = load_backbone("digits_vit", SHIPPED).pixel_range()
    (mean,), (std,) = VIT.data.mean, VIT.data.std
    torch.testing.assert_close(low, torch.full((1, 1, 1), -mean / std))
    torch.testing.assert_close(high, torch.full((1, 1, 1), (1 - mean) / std))


def test_hash_reads_files_longer_than_one_chunk(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "long").write_bytes(content)
    assert sha256_of_file(tmp_path / "long") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("wrapped", [False, True])
def test_pth_files_load_with_and_without_the_model_key(tmp_path, wrapped):
    state = safetensors.torch.load_file(SHIPPED)
    torch.save({"model": state, "epoch": 3} if wrapped else state, tmp_path / "x.pth")
    teacher = load_backbone("digits_vit", tmp_path / "x.pth")
    assert torch.equal(teacher.model.cls_token, state["cls_token"])


def test_swin_files_in_the_authors_layout_load(tmp_path):
    state = safetensors.torch.load_file(find_weights(SWIN))
    authors = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.int64)}
    authors |= {"layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16)}
    for key, value in state.items():
        renamed = key.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc.", "head.")
        authors[renamed] = value
    assert "layers.0.downsample.reduction.weight" in authors
    safetensors.torch.save_file(authors, tmp_path / "swin.safetensors")
    loaded = load_backbone("digits_swin", tmp_path / "swin.safetensors").model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def truncated(path):
    path.write_bytes(SHIPPED.read_bytes()[:-1000])


def half_a_header(path):
    path.write_bytes(SHIPPED.read_bytes()[:50])


def text(path):
    path.write_text("this is no checkpoint")


def empty(path):
    path.write_bytes(b"")


def truncated_pth(path):
    torch.save(safetensors.torch.load_file(SHIPPED), path)
    path.write_bytes(path.read_bytes()[:5000])


def a_list(path):
    torch.save([1, 2], path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("x.safetensors", truncated),
        ("x.safetensors", half_a_header),
        ("x.safetensors", text),
        ("x.safetensors", empty),
        ("x.pth", truncated_pth),
        ("x.pth", text),
        ("x.pth", empty),
        ("x.pth", a_list),
    ],
)
def test_a_damaged_file_gives_one_sentence_with_its_path(tmp_path, name, damage):
    damage(tmp_path / name)
    with pytest.raises(WeightsError, match="weights of digits_vit") as caught:
        load_backbone("digits_vit", tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_weights_error(tmp_path):
    with pytest.raises(WeightsError, match="cannot read the weights of digits_vit"):
        load_backbone("digits_vit", tmp_path / "absent.safetensors")


def test_weights_of_another_architecture_name_both(tmp_path):
    with pytest.raises(WeightsError, match=r"does not fit digits_swin \(swin_tiny_patch4_window7_224\)"):
        load_backbone("digits_swin", SHIPPED)
    with pytest.raises(WeightsError, match="does not fit deit_tiny"):
        load_backbone("deit_tiny", SHIPPED)


def test_weights_with_another_number_of_classes_do_not_fit(tmp_path):
    state = safetensors.torch.load_file(SHIPPED)
    state["head.weight"], state["head.bias"] = torch.zeros(7, 64), torch.zeros(7)
    safetensors.torch.save_file(state, tmp_path / "seven.safetensors")
    with pytest.raises(WeightsError, match=r"head\.weight"):
        load_backbone("digits_vit", tmp_path / "seven.safetensors")


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_of_a_training_that_diverged_are_refused_by_name(tmp_path, spoilt, dtype):
    state = {name: value.to(dtype) for name, value in safetensors.torch.load_file(SHIPPED).items()}
    state["blocks.1.attn.qkv.weight"][3, 2] = spoilt
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth are damaged: blocks\.1\.attn\.qkv\.weight holds NaN"):
        load_backbone("digits_vit", tmp_path / "x.pth")


def test_an_unknown_backbone_names_near_ones():
    with pytest.raises(ValueError, match="unknown backbone 'deit_tinny': did you mean deit_tiny"):
        load_backbone("deit_tinny", SHIPPED)


def test_loading_leaves_the_global_random_state():
    before = torch.get_rng_state()
    load_backbone("digits_vit", SHIPPED)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_given_file_comes_before_shipped_weights_and_folder(tmp_path):
    given = tmp_path / "mine.safetensors"
    given.write_bytes(b"x")
    assert find_weights(VIT, given=given, folder=tmp_path) == given


def test_shipped_weights_come_before_the_folder(tmp_path):
    (tmp_path / "digits_vit.safetensors").write_bytes(b"x")
    assert find_weights(VIT, folder=tmp_path).parent.name == "weights"


def test_the_folder_comes_before_the_hub_and_safetensors_before_pth(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("asked the hub"))
    (tmp_path / "deit_tiny.pth").write_bytes(b"x")
    assert find_weights(SPECS["deit_tiny"], folder=tmp_path).suffix == ".pth"
    (tmp_path / "deit_tiny.safetensors").write_bytes(b"x")
    assert find_weights(SPECS["deit_tiny"], folder=tmp_path).suffix == ".safetensors"


def test_a_given_file_that_is_missing_is_an_error_and_not_a_download(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(WeightsError, match=re.escape("--weights deit_tiny=FILE")):
        find_weights(SPECS["deit_tiny"], given=tmp_path / "absent.pth")


def test_the_hub_is_asked_for_the_pinned_tag(tmp_path, monkeypatch):
    asked = []
    file = tmp_path / "model.safetensors"
    state = build_model(SPECS["deit_tiny"]).state_dict()
    safetensors.torch.save_file(state, file)

    def download(repository, name):
        asked.append((repository, name))
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    found = find_weights(SPECS["deit_tiny"], folder=tmp_path)
    assert asked == [("timm/deit_tiny_patch16_224.fb_in1k", "model.safetensors")]
    teacher = load_backbone("deit_tiny", found)
    assert torch.equal(teacher.model.head.weight, state["head.weight"])


def test_an_unreachable_hub_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="give --weights vit_small=FILE") as caught:
        find_weights(SPECS["vit_small"])
    assert "vit_small_patch16_224.augreg_in21k_ft_in1k" in str(caught.value)


def test_without_download_the_hub_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("asked the hub"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(WeightsError, match="no weights for deit_tiny on this machine; give --weights"):
        find_weights(SPECS["deit_tiny"], folder=tmp_path, download=False)
    assert find_weights(VIT, download=False) == SHIPPED


def test_without_download_an_earlier_one_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *asked: str(tmp_path / asked[1]))
    found = find_weights(SPECS["deit_tiny"], download=False)
    assert found == tmp_path / "model.safetensors"
