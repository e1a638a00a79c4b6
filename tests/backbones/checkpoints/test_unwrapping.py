"""Envelopes and prefixes are unwrapped and said; of several sets one is taken, the others can be chosen."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from backbones import SPECS, WeightsError, check_weights, find_weights, load_backbone, sha256_of_weights

SPEC = SPECS["digits_vit"]
STATE = safetensors.torch.load_file(find_weights(SPEC))
OTHER = {name: value * 0.5 for name, value in STATE.items()}


def behind(prefix, state=STATE):
    return {prefix + name: value for name, value in state.items()}


def loads(weights, state=STATE):
    loaded = load_backbone("digits_vit", weights).model.state_dict()
    return all(torch.equal(loaded[name], value) for name, value in state.items())


def write(folder, content):
    torch.save(content, folder / "x.pth")
    return folder / "x.pth"


@pytest.mark.parametrize(
    "key", ["model", "state_dict", "model_state_dict", "net", "model_ema", "state_dict_ema", "ema", "module"]
)
def test_envelopes_are_unwrapped_and_said(tmp_path, key):
    file = write(tmp_path, {"epoch": 3, key: STATE})
    assert loads(file)
    assert check_weights("digits_vit", file) == f"weights of digits_vit: '{key}' of {file} is taken"


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "module.model.", "net.module."])
def test_prefixes_are_unwrapped_and_said(tmp_path, prefix):
    file = write(tmp_path, behind(prefix))
    assert loads(file)
    assert f"'{prefix[:-1]}' of" in check_weights("digits_vit", file)


def test_envelopes_and_prefixes_nest(tmp_path):
    file = write(tmp_path, {"ema": {"module": behind("module._orig_mod.")}})
    assert loads(file)
    assert "'ema.module.module' of" in check_weights("digits_vit", file)


def test_words_of_compiling_and_sharding_go_anywhere(tmp_path):
    inner = {name.replace("attn.", "_fsdp_wrapped_module.attn."): value for name, value in STATE.items()}
    assert inner.keys() != STATE.keys()
    assert loads(write(tmp_path, behind("_orig_mod.", inner)))


def test_tensors_beside_a_prefix_are_left_out_and_said(tmp_path):
    file = write(tmp_path, {"state_dict": {**behind("model."), "loss.weight": torch.ones(3)}})
    assert loads(file)
    assert "1 other tensors beside it are left out" in check_weights("digits_vit", file)


@pytest.mark.parametrize("reverse", [False, True])
def test_of_model_and_average_the_model_is_taken_and_the_choice_said(tmp_path, reverse):
    content = [("model", STATE), ("model_ema", OTHER)]
    file = write(tmp_path, dict(content[::-1] if reverse else content))
    note = check_weights("digits_vit", file)
    assert "'model' of" in note
    assert f"also holds 'model_ema': choose with --weights digits_vit={file}::model_ema" in note
    assert loads(file)
    assert loads(Path(f"{file}::model_ema"), OTHER)


def test_averages_among_flat_names_are_a_set_too(tmp_path):
    file = write(tmp_path, {"state_dict": {**behind("model."), **behind("model_ema.", OTHER)}})
    assert loads(file)
    assert loads(Path(f"{file}::state_dict.model_ema"), OTHER)


def test_a_choice_has_another_hash_and_goes_through_finding(tmp_path):
    file = write(tmp_path, {"model": STATE, "model_ema": OTHER})
    chosen = find_weights(SPEC, given=Path(f"{file}::model_ema"))
    assert load_backbone("digits_vit", chosen).weights_sha256 == sha256_of_weights("digits_vit", chosen)
    assert sha256_of_weights("digits_vit", chosen) != sha256_of_weights("digits_vit", file)


@pytest.mark.parametrize("choice", ["model", "model.module"])
def test_a_choice_that_names_the_default_has_its_hash(tmp_path, choice):
    content = {"model": STATE if choice == "model" else {"module": STATE}, "model_ema": OTHER}
    file = write(tmp_path, content)
    chosen = find_weights(SPEC, given=Path(f"{file}::{choice}"))
    assert sha256_of_weights("digits_vit", chosen) == sha256_of_weights("digits_vit", file)
    assert load_backbone("digits_vit", chosen).weights_sha256 == sha256_of_weights("digits_vit", file)


def test_a_choice_that_is_not_there_names_what_is(tmp_path):
    file = write(tmp_path, {"model": STATE, "model_ema": OTHER})
    with pytest.raises(WeightsError, match="no 'swa' for digits_vit, but model, model_ema"):
        check_weights("digits_vit", Path(f"{file}::swa"))


def test_two_colons_may_stand_in_a_files_name(tmp_path):
    torch.save(STATE, tmp_path / "a::b.pth")
    assert loads(find_weights(SPEC, given=tmp_path / "a::b.pth"))


def test_foreign_names_are_shown_with_what_was_expected(tmp_path):
    file = write(tmp_path, {"encoder.a": torch.ones(2), "encoder.b": torch.ones(2)})
    with pytest.raises(WeightsError, match=r"first names are encoder.a, encoder.b; expected are cls_token, "):
        check_weights("digits_vit", file)


def test_an_envelope_without_tensors_shows_its_entries(tmp_path):
    with pytest.raises(WeightsError, match="holds no weights of digits_vit, but the entries epoch, loss"):
        check_weights("digits_vit", write(tmp_path, {"epoch": 3, "loss": 0.5}))


def test_missing_and_unknown_names_are_listed(tmp_path):
    state = {**STATE, "dist_token": torch.ones(1)}
    del state["pos_embed"]
    with pytest.raises(WeightsError, match="lacks pos_embed; it has dist_token"):
        check_weights("digits_vit", write(tmp_path, state))


def test_another_number_of_classes_is_said_as_that(tmp_path):
    state = {**STATE, "head.weight": torch.zeros(7, 64), "head.bias": torch.zeros(7)}
    with pytest.raises(WeightsError, match=r"has 7 classes, digits_vit 10 \(head.weight is 7x64"):
        check_weights("digits_vit", write(tmp_path, {"model": state}))


def test_another_shape_is_said_with_both(tmp_path):
    with pytest.raises(WeightsError, match="cls_token is 1x1x32 instead of 1x1x64"):
        check_weights("digits_vit", write(tmp_path, {**STATE, "cls_token": torch.zeros(1, 1, 32)}))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_cast_and_said(tmp_path, kind):
    narrow = {name: value.to(kind) for name, value in STATE.items()}
    file = write(tmp_path, narrow)
    assert loads(file, {name: value.float() for name, value in narrow.items()})
    assert f"{str(kind)[6:]} is cast to float32" in check_weights("digits_vit", file)


def test_whole_numbers_are_no_weights(tmp_path):
    with pytest.raises(WeightsError, match=r"torch.int8, no floating-point numbers"):
        check_weights(
            "digits_vit", write(tmp_path, {**STATE, "head.weight": torch.ones(10, 64, dtype=torch.int8)})
        )


def test_a_checkpoint_that_holds_itself_ends(tmp_path):
    content = {"model": STATE}
    content["model_again"] = content
    assert loads(write(tmp_path, content))
