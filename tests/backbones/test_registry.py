"""Backbones and families that plug-ins register beside the built-in ones."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

from backbones import (
    SPECS,
    backbone_names,
    family_of,
    find_weights,
    get_spec,
    load_backbone,
    register,
    registry,
)
from backbones.base import FAMILIES
from backbones.families.registry import family_names, get_family
from backbones.families.vit import Vit
from backbones.registry import ENTRY_POINT_GROUP


class Mirrored(Vit):
    """A plug-in's family: a ViT under a name of its own."""

    name = "mirrored"


FAMILY = Mirrored()
SPEC = dataclasses.replace(SPECS["digits_vit"], name="digits_mirrored", family="mirrored")


def test_the_built_in_backbones_are_known_and_have_a_family():
    assert set(SPECS) <= set(backbone_names())
    for name in backbone_names():
        assert get_spec(name).name == name
        assert family_of(get_spec(name)).name == get_spec(name).family


def test_detectors_are_told_from_classifiers():
    detectors = {name for name in SPECS if get_spec(name).is_detector}
    assert detectors == {
        "digits_yolos",
        "yolos_tiny",
        "yolos_small",
        "maskrcnn_swin_tiny",
        "maskrcnn_swin_small",
    }


def test_unknown_names_come_with_near_ones():
    with pytest.raises(ValueError, match="unknown backbone 'deit_tinny': did you mean deit_tiny"):
        get_spec("deit_tinny")
    with pytest.raises(ValueError, match="unknown family 'swim': did you mean swin"):
        get_family("swim")


def test_a_backbone_with_a_family_of_its_own_loads(tmp_path):
    register(SPEC, FAMILY)
    assert get_spec("digits_mirrored") is SPEC
    assert family_of(SPEC) is FAMILY
    assert "mirrored" in family_names()
    shipped = find_weights(SPECS["digits_vit"])
    teacher = load_backbone("digits_mirrored", shipped)
    assert teacher.family is FAMILY
    assert torch.equal(teacher.model.cls_token, safetensors.torch.load_file(shipped)["cls_token"])


def test_methods_for_every_family_take_a_plug_ins_too():
    assert sorted(FAMILIES) == ["mask_rcnn", "swin", "vit", "yolos"]
    assert "mirrored" in FAMILIES
    assert "mirrored" not in frozenset({"vit", "swin"})


@pytest.mark.parametrize(
    ("offered", "sentence"),
    [
        ([SPECS["digits_vit"]], "the backbone name 'digits_vit' is taken"),
        ([SPEC, SPEC, FAMILY], "the backbone name 'digits_mirrored' is taken"),
        ([FAMILY, dataclasses.replace(SPEC, name="../x")], "the backbone name '../x' is no word of letters"),
        ([Vit()], "the family name 'vit' is taken"),
        ([SPEC], "unknown family 'mirrored' of digits_mirrored"),
        ([FAMILY, dataclasses.replace(SPEC, family="mirorred")], "did you mean mirrored"),
    ],
)
def test_what_cannot_be_registered_is_refused_whole(offered, sentence):
    before = backbone_names(), family_names()
    with pytest.raises(ValueError, match=sentence):
        register(*offered)
    assert (backbone_names(), family_names()) == before


def test_something_else_is_refused():
    with pytest.raises(TypeError, match="a BackboneSpec or a Family is needed, not str"):
        register(FAMILY, "digits_vit")
    assert "mirrored" not in family_names()


@pytest.fixture
def installed(monkeypatch):
    """Make the entry points of the backbones' group these, each a loader."""

    def install(**loaders):
        points = [SimpleNamespace(name=n, value=f"{n}:X", load=load) for n, load in loaders.items()]
        monkeypatch.setattr(
            "importlib.metadata.entry_points", lambda group: points if group == ENTRY_POINT_GROUP else []
        )
        monkeypatch.setattr(registry, "_unread", [ENTRY_POINT_GROUP])

    return install


def test_installed_plug_ins_are_found(installed):
    installed(both=lambda: (SPEC, FAMILY), one=lambda: dataclasses.replace(SPECS["digits_vit"], name="other"))
    assert backbone_names()[-2:] == ["digits_mirrored", "other"]
    assert get_spec("other").family == "vit"


def test_broken_plug_ins_warn_and_are_skipped(installed):
    def broken():
        raise ImportError("no module named left")

    installed(
        broken=broken, taken=lambda: SPECS["digits_vit"], strange=lambda: 3, good=lambda: (FAMILY, SPEC)
    )
    with pytest.warns(UserWarning, match="is skipped") as warned:
        assert backbone_names()[-1] == "digits_mirrored"
    assert [str(w.message).split(":")[-1].strip() for w in warned] == [
        "no module named left",
        "the backbone name 'digits_vit' is taken",
        "a BackboneSpec or a Family is needed, not int",
    ]
