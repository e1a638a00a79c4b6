"""What train scripts pickle beside weights loads, and nothing that a pickle names is run."""

import argparse
import collections
import contextlib
import datetime
import functools
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from backbones import SPECS, WeightsError, check_weights, find_weights, load_backbone
from backbones.loading import build_model

STATE = safetensors.torch.load_file(find_weights(SPECS["digits_vit"]))


class Config(dict):
    """A dictionary with attributes, as yacs and mmcv have them."""


def config():
    made = Config(lr=0.1)
    made.frozen = True
    return made


BESIDE = {
    "namespace": argparse.Namespace(lr=1e-3, output=Path("out")),
    "numpy scalar": np.float64(81.2),
    "numpy array": np.zeros(3),
    "numpy random state": np.random.RandomState(0).get_state(),
    "config": config(),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "deque": collections.deque([1, 2]),
    "partial": functools.partial(print, 1),
    "date": datetime.datetime(2020, 1, 1),
    "optimizer": torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1).state_dict(),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("beside", BESIDE)
def test_checkpoints_of_train_scripts_load(tmp_path, beside, zipped):
    content = {"args": BESIDE[beside], "epoch": 3, "state_dict": STATE}
    torch.save(content, tmp_path / "x.pth.tar", _use_new_zipfile_serialization=zipped)
    loaded = load_backbone("digits_vit", tmp_path / "x.pth.tar").model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in STATE.items())


class Hostile:
    """An object whose unpickling writes a file."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


REFUSED = ("system", "method", "makedirs")
"""Pickles that torch refuses as a whole; of the others it reads the weights, and calls a stand-in."""


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ["system", "eval", "method", "makedirs"])
def test_a_hostile_pickle_runs_nothing(tmp_path, kind, zipped):
    mark = tmp_path / "mark"
    hostile = {
        "system": Hostile(os.system, f"touch {mark}"),
        "eval": Hostile(eval, f"__import__('os').mkdir({str(mark)!r})"),
        "method": Hostile(Path.touch, mark),
        "makedirs": Hostile(os.makedirs, str(mark)),
    }[kind]
    torch.save({"model": STATE, "args": hostile}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    refused = pytest.raises(WeightsError, match="wants code to be run, which is refused")
    with refused if kind in REFUSED else contextlib.nullcontext():
        check_weights("digits_vit", tmp_path / "x.pth")
    assert not mark.exists()
    torch.load(tmp_path / "x.pth", weights_only=False)
    assert mark.exists()  # the pickle was a live one


def test_a_whole_pickled_model_gives_its_weights(tmp_path):
    model = build_model(SPECS["digits_vit"])
    model.load_state_dict(STATE)
    torch.save({"model": model}, tmp_path / "x.pt")
    loaded = load_backbone("digits_vit", tmp_path / "x.pt").model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in STATE.items())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_another_protocol_of_pickle_loads_or_is_named(tmp_path, protocol, zipped):
    file = tmp_path / "x.pth"
    torch.save(STATE, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    if protocol == 3:
        assert check_weights("digits_vit", file) == ""
        return
    with pytest.raises(
        WeightsError, match=rf"it was pickled with protocol {protocol}, and torch reads"
    ) as caught:
        check_weights("digits_vit", file)
    assert "damaged" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_whole_model_of_torch_before_1_6_is_named(tmp_path):
    model = build_model(SPECS["digits_vit"])
    torch.save(model, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"it is a whole model as torch before 1\.6 pickled it") as caught:
        check_weights("digits_vit", tmp_path / "x.pt")
    assert "damaged" not in str(caught.value)
