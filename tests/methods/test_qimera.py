from __future__ import annotations

import pytest
import torch
from scipy.special import log_softmax

from methods.base import SynthesisTask
from methods.qimera import Qimera, QimeraConfig
from methods.synthesis.generator import Mixture
from methods.testing.models import DIGITS_MODELS, assert_smoke, seeded, synthesizer, untrained


@pytest.mark.parametrize("family", DIGITS_MODELS)
def test_smoke(family):
    assert_smoke("qimera", family)


def test_the_loss_is_the_cross_entropy_against_the_shares():
    teacher = untrained("digits_vit")
    images = torch.randn(2, 1, 16, 16, generator=seeded())
    mixture = Mixture.of(torch.tensor([[4, 0], [9, 9]]), torch.tensor([[0.75, 0.25], [0.4, 0.6]]), 10)
    losses = Qimera(QimeraConfig()).losses(images, mixture, teacher, None)
    logs = log_softmax(teacher.model(images).numpy(), axis=1)
    expected = -(0.75 * logs[0, 4] + 0.25 * logs[0, 0] + logs[1, 9]) / 2
    assert losses["soft_label"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("probability", "mixed"), [(0.0, 0), (1.0, 500), (0.4, 200)])
def test_whole_batches_are_mixed_with_the_probability(probability, mixed):
    maker = Qimera(QimeraConfig(mixed_probability=probability))
    source = seeded()
    drawn = [maker.mixture(untrained("digits_vit"), generator=source) for _ in range(500)]
    assert sum(m.labels.shape[1] > 1 for m in drawn) == pytest.approx(mixed, abs=30 if 0 < mixed < 500 else 0)
    assert all(m.labels.shape[0] == 16 for m in drawn)


@pytest.mark.parametrize(("share", "classes"), [(0.1, 2), (0.5, 5), (1.0, 10)])
def test_a_mixture_holds_a_share_of_the_classes_and_two_at_least(share, classes):
    maker = Qimera(QimeraConfig(mixed_probability=1.0, mixed_share=share))
    assert maker.mixture(untrained("digits_vit"), generator=seeded()).labels.shape == (16, classes)


@pytest.mark.parametrize("family", DIGITS_MODELS)
@pytest.mark.parametrize("mode", ["fixed", "faithful"])
def test_class_vectors_start_as_the_classifier(family, mode):
    teacher = untrained(family)
    network = Qimera(QimeraConfig(mode=mode)).network(teacher, generator=seeded())
    head = teacher.model.head if family == "digits_vit" else teacher.model.head.fc
    assert torch.equal(network.class_vectors, head.weight)
    assert all(norm.divide_mixed == (mode == "faithful") for norm in network.norms)


def test_training_leaves_the_teacher_s_classifier_alone():
    teacher = untrained("digits_vit")
    before = teacher.model.head.weight.clone()
    synthesizer("qimera", iterations=5).synthesize(SynthesisTask(teacher, generator=seeded()))
    assert torch.equal(teacher.model.head.weight, before)


def test_mixed_images_carry_no_label():
    teacher = untrained("digits_vit")
    mixed = synthesizer("qimera", mixed_probability=1.0).synthesize(
        SynthesisTask(teacher, generator=seeded())
    )
    single = synthesizer("qimera", mixed_probability=0.0).synthesize(
        SynthesisTask(teacher, generator=seeded())
    )
    assert mixed.labels.tolist() == [-1] * 4
    assert single.labels.min() >= 0


def test_modes_differ_where_classes_are_mixed_alone():
    teacher = untrained("digits_vit")

    def images(mode: str, probability: float) -> torch.Tensor:
        maker = synthesizer("qimera", mode=mode, mixed_probability=probability)
        return maker.synthesize(SynthesisTask(teacher, generator=seeded())).images

    assert torch.equal(images("fixed", 0.0), images("faithful", 0.0))
    assert not torch.equal(images("fixed", 1.0), images("faithful", 1.0))
