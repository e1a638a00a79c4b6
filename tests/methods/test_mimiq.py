"""MimiQ: the terms of its objective against the released functions, its rate and its views."""

from __future__ import annotations

import math

import pytest
import torch

from backbones import Backbone
from methods.base import SynthesisTask
from methods.mimiq import METHOD, MimiqConfig, MimiqObjective
from methods.synthesis.loop import Batch
from methods.testing.models import seeded, synthesizer, untrained
from tests.golden import sine

REFERENCE = 16 * 3 * 224 * 224


def batch_of(teacher: Backbone, count: int = 4, **more) -> Batch:
    return Batch(teacher, torch.arange(count), seeded(), **more)


def test_the_terms_are_the_released_functions_weighed(golden):
    images = sine((2, 3, 32, 32), 0.11, 0.2, 1.0)
    layers = list(sine((2, 2, 3, 197, 197), 0.0137, 0.3, 4.0))
    config = MimiqConfig(head_weight=2.0, one_hot_weight=3.0, variation_weight=1e-3)
    objective = MimiqObjective(config, batch_of(untrained("digits_vit"), 2))
    losses = objective.prior_losses(images, torch.zeros(2, 10), layers)
    scale = math.sqrt(REFERENCE / images.numel())
    assert losses["head_similarity"].item() == pytest.approx(
        2 * golden["maskaq.head_ssim"]["value"], rel=1e-4
    )
    assert losses["one_hot"].item() == pytest.approx(3 * math.log(10))
    assert losses["variation"].item() == pytest.approx(1e-3 * scale * golden["maskaq.tv"]["value"], rel=1e-4)


def test_the_heads_of_a_swin_are_compared_window_by_window(golden):
    layer = sine((8, 3, 49, 49), 0.0137, 0.3, 4.0)
    objective = MimiqObjective(MimiqConfig(), batch_of(untrained("digits_swin"), 2))
    losses = objective.prior_losses(torch.zeros(2, 1, 16, 16), torch.zeros(2, 10), [layer, layer])
    assert losses["head_similarity"].item() == pytest.approx(
        golden["mimiq.head_ssim_swin"]["value"], rel=1e-4
    )


def test_a_set_made_on_noise_alone_carries_every_term():
    made = synthesizer("mimiq").synthesize(SynthesisTask(untrained("digits_vit"), seeded()))
    assert set(made.final_losses) == {"head_similarity", "one_hot", "variation"}


def test_the_engine_distils_heads_by_structure():
    assert METHOD.engine_settings(MimiqConfig()) == {"head_distillation": "structural"}


def test_rate_falls_along_the_cosine():
    rate = MimiqObjective(MimiqConfig(), batch_of(untrained("digits_vit"))).learning_rate
    assert rate(0) == pytest.approx(0.1)
    assert rate(1000) == pytest.approx((0.1 + 0.001) / 2)
    assert rate(1999) == pytest.approx(0.001, abs=1e-6)


def test_colour_shift_fades_out():
    images = torch.zeros(64, 1, 16, 16)
    objective = MimiqObjective(MimiqConfig(iterations=1000), batch_of(untrained("digits_vit")))
    spread = [objective.view(images, i).std().item() for i in (0, 999)]
    assert spread[1] < spread[0]
