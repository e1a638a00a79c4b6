"""PSAQ-ViT: the terms of its objective, its learning rates and what its images become."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from backbones import Backbone
from backbones.families.explicit import AttentionTaps
from methods import configure
from methods.base import SynthesisTask
from methods.psaq_vit import PsaqVit, PsaqVitConfig, PsaqVitObjective
from methods.synthesis.loop import Batch
from methods.synthesis.patch_similarity import patch_similarity_entropy
from methods.testing.models import DIGITS_MODELS, seeded, untrained
from tests.golden import sine


@pytest.fixture(scope="module", params=DIGITS_MODELS)
def teacher(request) -> Backbone:
    return untrained(request.param)


def batch_of(teacher: Backbone, count: int = 4, **more) -> Batch:
    return Batch(teacher, torch.arange(count), seeded(), **more)


def test_the_entropy_is_the_released_function_s_summed_over_layers_and_weighed(golden, monkeypatch):
    """The teacher's attention outputs are those that the released function was run on, in two layers."""
    teacher = untrained("digits_vit")
    outputs = sine((2, 3, 197, 16), 0.021, 0.4, 1.0) + 0.5 * sine((2, 3, 197, 16), 1.7, 0.4, 1.0)
    monkeypatch.setattr(AttentionTaps, "outputs", [outputs, outputs], raising=False)
    monkeypatch.setattr(AttentionTaps, "__init__", lambda self, model, **wanted: None)
    monkeypatch.setattr(AttentionTaps, "__enter__", lambda self: self)
    monkeypatch.setattr(AttentionTaps, "__exit__", lambda self, *error: None)
    objective = PsaqVitObjective(PsaqVitConfig(entropy_weight=0.5), batch_of(teacher, 2))
    losses = objective.losses(torch.zeros(2, 1, 16, 16), torch.zeros(2, 1, 16, 16), 0)
    expected = -0.5 * 2 * golden["psaq_vit.patch_entropy"]["value"]
    assert losses["patch_entropy"].item() == pytest.approx(expected, rel=1e-4)


def test_the_variation_is_the_released_function_s_distance_to_tau(golden):
    images = sine((2, 3, 32, 32), 0.11, 0.2, 1.0)
    scale = math.sqrt(2 * 1 * 16 * 16 / (32 * 3 * 224 * 224))
    objective = PsaqVitObjective(PsaqVitConfig(variation_weight=2.0), batch_of(untrained("digits_vit"), 2))
    tau = float(torch.empty(()).uniform_(2500, 3000, generator=seeded())) * scale
    expected = 2 * abs(golden["psaq_vit.tv_norms"]["value"] - tau)
    assert objective.variation(images).item() == pytest.approx(expected, rel=1e-4)


def test_the_terms_are_what_they_say(teacher):
    weights = {"entropy_weight": 3.0, "one_hot_weight": 2.0, "variation_weight": 0.0}
    images = torch.randn(4, 1, 16, 16, generator=seeded())
    losses = PsaqVitObjective(PsaqVitConfig(**weights), batch_of(teacher)).losses(images, images, 0)
    with AttentionTaps(teacher.model, outputs=True) as taps:
        logits = teacher.model(images)
    entropies = [patch_similarity_entropy(x, 4, skip_tokens=teacher.prefix_tokens) for x in taps.outputs]
    assert losses["patch_entropy"].item() == pytest.approx(-3 * sum(x.item() for x in entropies), rel=1e-5)
    cross_entropy = nn.functional.cross_entropy(logits, torch.arange(4)).item()
    assert losses["one_hot"].item() == pytest.approx(2 * cross_entropy)
    assert losses["variation"].item() == 0


def test_rates_warm_up_in_both_phases():
    rate = PsaqVitObjective(PsaqVitConfig(), batch_of(untrained("digits_vit"))).learning_rate
    assert [rate(i) for i in (0, 99, 100, 300)] == pytest.approx([0.002, 0.2, 0.2, 0.1])
    assert rate(499) == pytest.approx(0, abs=1e-4)
    assert [rate(i) for i in (500, 599, 800)] == pytest.approx([0.002, 0.2, 0.1])
    swin = PsaqVitObjective(PsaqVitConfig(), batch_of(untrained("digits_swin")))
    assert swin.learning_rate(99) == pytest.approx(0.25)


def test_wants_the_paper_s_variation_scaled_to_the_batch():
    teacher = untrained("digits_vit")
    images = torch.zeros(4, 1, 16, 16)
    wanted = []
    for seed in range(200):
        batch = Batch(teacher, torch.arange(4), seeded(seed))
        objective = PsaqVitObjective(PsaqVitConfig(variation_weight=1.0), batch)
        wanted.append(objective.losses(images, images, 0)["variation"].item())
    scale = (4 * 1 * 16 * 16 / (32 * 3 * 224 * 224)) ** 0.5
    assert 2500 * scale <= min(wanted) < 2520 * scale
    assert 2980 * scale < max(wanted) <= 3000 * scale


def test_drops_a_swin_patch_only_when_asked():
    teacher = untrained("digits_swin")
    images = torch.randn(4, 1, 16, 16, generator=seeded())

    def entropy(**settings) -> torch.Tensor:
        objective = PsaqVitObjective(PsaqVitConfig(**settings), batch_of(teacher))
        return objective.losses(images, images, 0)["patch_entropy"]

    assert entropy() != entropy(faithful_swin_drop=True)
    vit = PsaqVitObjective(PsaqVitConfig(faithful_swin_drop=True), batch_of(untrained("digits_vit")))
    kept = PsaqVitObjective(PsaqVitConfig(), batch_of(untrained("digits_vit")))
    assert vit.losses(images, images, 0)["patch_entropy"] == kept.losses(images, images, 0)["patch_entropy"]


def test_ends_with_more_diverse_patches_than_noise(teacher):
    noise = torch.randn(4, 1, 16, 16, generator=seeded())
    objective = PsaqVitObjective(PsaqVitConfig(), batch_of(teacher))
    before = objective.losses(noise, noise, 0)["patch_entropy"]
    alone = {"iterations": 80, "learning_rate": 0.02, "one_hot_weight": 0, "variation_weight": 0}
    synthesizer = PsaqVit(configure(PsaqVitConfig, "smoke", alone))
    made = synthesizer.synthesize(SynthesisTask(teacher, generator=seeded())).images
    assert objective.losses(made, made, 0)["patch_entropy"] < before
