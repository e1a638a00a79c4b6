"""Every registered family keeps the contract of `backbones.testing`; each check is provoked."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from backbones.families import registry
from backbones.families.registry import family_names
from backbones.families.vit import Vit
from backbones.testing import (
    CHECKS,
    check_attention,
    check_heads,
    check_patches,
    check_quantization_points,
    check_weights,
)
from methods.testing.models import teacher_of, tiny


@pytest.mark.parametrize("family", family_names())
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_family_keeps_its_contract(family, check):
    teacher = teacher_of(family)
    assert teacher.family.name == family
    check(teacher)


@pytest.mark.parametrize("family", family_names())
def test_a_detector_finds_and_a_classifier_gives_logits(family):
    teacher = teacher_of(family)
    images = torch.randn(1, *teacher.data.input_size, generator=torch.Generator().manual_seed(0))
    outputs = teacher.model(images)
    assert teacher.spec.is_detector == hasattr(teacher.model, "detections")
    if teacher.spec.is_detector:
        assert len(teacher.model.detections(outputs)) == 1
    else:
        assert outputs.shape == (1, teacher.num_classes)


class Renaming(Vit):
    """A family whose conversion spoils its own weights."""

    def convert_weights(self, state, model):
        return {f"x.{name}": value for name, value in state.items()}


class Misplaced(Vit):
    """A family that is wrong about where things are."""

    head_prefixes = ("blocks.3.", "neck.")

    def quantization_points(self, model):
        return [*super().quantization_points(model)[:10], "neck"]

    def patch_grid(self, model):
        return (8, 4)


@pytest.mark.parametrize(
    ("family", "check", "sentence"),
    [
        (Renaming, check_weights, "lose their names"),
        (Misplaced, check_heads, r"no module's name begins 'neck\.'"),
        (Misplaced, check_quantization_points, "no modules: neck"),
        (Misplaced, check_patches, "spans 65 tokens, prefix and patches are 33"),
    ],
)
def test_a_family_that_breaks_the_contract_is_told(monkeypatch, family, check, sentence):
    monkeypatch.setitem(registry._families, "vit", family())
    with pytest.raises(AssertionError, match=sentence):
        check(tiny("digits_vit"))


def test_a_model_without_explicit_attention_is_told():
    plain = dataclasses.replace(tiny("digits_vit"), model=torch.nn.Linear(2, 2))
    with pytest.raises(AssertionError, match="no attention module is explicit"):
        check_attention(plain)
