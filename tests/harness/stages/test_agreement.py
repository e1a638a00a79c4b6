from __future__ import annotations

import copy

import pytest
import torch

from backbones import SPECS, find_weights, load_backbone
from harness.stages.agreement import compared

IMAGES = 6


def images_for(name: str) -> torch.Tensor:
    shape = (IMAGES, *SPECS[name].data.input_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["digits_vit", "digits_yolos"])
def test_a_model_agrees_with_itself_and_less_with_a_damaged_copy(name):
    teacher = load_backbone(name, find_weights(SPECS[name]))
    images = images_for(name)
    same = compared(copy.deepcopy(teacher.model), teacher, images, batch_size=4)
    assert same.metrics["agreement"] == 100.0
    assert len(same.outcomes["agreement"]) == IMAGES
    damaged = copy.deepcopy(teacher.model)
    head = damaged.class_head.layers[-1] if name == "digits_yolos" else damaged.head
    head.bias.data[0] += 50.0  # everything is a 0
    assert compared(damaged, teacher, images, batch_size=4).metrics["agreement"] < 100.0
