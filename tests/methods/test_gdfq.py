from __future__ import annotations

import pytest
import torch
from scipy.special import log_softmax

from methods import configure, get_method
from methods.base import SynthesisTask
from methods.gdfq import Gdfq
from methods.synthesis.generator import Mixture
from methods.synthesis.generator_training import GeneratorConfig
from methods.testing.models import DIGITS_MODELS, assert_smoke, seeded, tiny, untrained


@pytest.mark.parametrize("family", DIGITS_MODELS)
def test_smoke(family):
    assert_smoke("gdfq", family)


def test_the_loss_is_the_class_s_cross_entropy():
    teacher = untrained("digits_vit")
    images = torch.randn(3, 1, 16, 16, generator=seeded())
    labels = torch.tensor([4, 0, 9])
    mixture = Mixture.of(labels[:, None], torch.ones(3, 1), 10)
    losses = Gdfq(GeneratorConfig()).losses(images, mixture, teacher, None)
    logs = log_softmax(teacher.model(images).numpy(), axis=1)
    assert losses["one_hot"].item() == pytest.approx(-logs[range(3), labels].mean(), rel=1e-5)


def test_training_makes_the_teacher_see_the_wanted_classes():
    overrides = {"images": 64, "batch_size": 16, "iterations": 100, "learning_rate": 0.01}
    teacher = tiny("digits_swin")
    drawn = Gdfq(configure(GeneratorConfig, "fast", overrides)).synthesize(
        SynthesisTask(teacher, generator=seeded())
    )
    agreement = (teacher.model(drawn.images).argmax(dim=1) == drawn.labels).float().mean()
    assert agreement > 0.25  # chance is 0.1


def test_the_paper_s_budget_is_400_epochs_of_200_steps():
    config = configure(GeneratorConfig, "paper", {})
    assert config.iterations == 400 * 200
    assert [int(share * 400) for share in config.milestones] == [100, 200, 300]


@pytest.mark.parametrize("name", ["gdfq", "qimera"])
def test_the_training_has_no_part_of_other_methods(name):
    method = get_method(name)
    assert method.engine == "lsq_qat"
    assert dict(method.engine_settings(method.synthesizer.Config())) == {"head_distillation": "none"}
