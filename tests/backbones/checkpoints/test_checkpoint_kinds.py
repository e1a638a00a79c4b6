"""Files that are no weights are named for what they are, by content and not by name."""

import io
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from backbones import SPECS, WeightsError, check_weights, find_weights, load_backbone

SHIPPED = find_weights(SPECS["digits_vit"])


def zip_of(**entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "/", 1).replace("__", "."), content)
    return buffer.getvalue()


def npz():
    buffer = io.BytesIO()
    np.savez(buffer, kernel=np.zeros(3))
    return buffer.getvalue()


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "x.bin"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><title>Virus scan warning</title>", r"web page \(HTML\)"),
        (b"\xef\xbb\xbf\n <HTML>", r"web page \(HTML\)"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "XML"),
        (b'{"error": "gated"}', "JSON: '"),
        (b"Entry not found", "text: 'Entry not found'"),
        (b"", r"empty \(0 bytes\)"),
        (b"\0" * 5000, "filled with zeros"),
        (b"\x1f\x8b\x08rest", "gzip archive"),
        (b"\x89HDF\r\n", "HDF5"),
        (zip_of(a__b="text"), "zip archive that holds a/b"),
        (zip_of(x__data__pkl="", x__constants__pkl=""), "TorchScript program"),
        (npz(), r"NumPy arrays \(\.npz\)"),
        (SHIPPED.read_bytes()[:-1000], "truncated: .* of .* bytes"),
        (SHIPPED.read_bytes()[:50], "truncated: 50 bytes"),
        (saved({"a": torch.zeros(999)})[:900], "truncated or damaged"),
        (saved({"a": torch.zeros(999)}, _use_new_zipfile_serialization=False)[:900], "truncated or damaged"),
    ],
)
def test_what_a_file_is_stands_in_the_message(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=said) as caught:
        check_weights("digits_vit", tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.pth", "x.bin", "model"])
def test_safetensors_load_under_any_name(tmp_path, name):
    (tmp_path / name).write_bytes(SHIPPED.read_bytes())
    assert check_weights("digits_vit", tmp_path / name) == ""
    assert load_backbone("digits_vit", tmp_path / name).num_classes == 10


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_load_under_any_name(tmp_path, zipped):
    state = safetensors.torch.load_file(SHIPPED)
    torch.save(state, tmp_path / "x.safetensors", _use_new_zipfile_serialization=zipped)
    loaded = load_backbone("digits_vit", tmp_path / "x.safetensors").model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
