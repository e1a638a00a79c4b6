"""AdaDFQ's losses against SciPy and hand-worked values, and how generator and student take turns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from methods import Bits, CoupledImages, configure, get_engine, get_method
from methods.adadfq import Adadfq, AdadfqConfig, margin_loss, normalized_entropy
from methods.base import QuantizationTask, SynthesisTask
from methods.engines.distillation import entropy_of_difference
from methods.synthesis.generator import Mixture
from methods.testing.models import (
    disturbed,
    seeded,
    synthesizer,
    tiny,
    untrained,
)


def logits(rows: int = 5, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, 7, generator=seeded(seed))


def test_normalized_entropy_equals_scipy():
    expected = entropy(softmax(logits().numpy(), axis=1), axis=1)
    expected = (expected - expected.min()) / (math.log(7) - expected.min())
    assert normalized_entropy(logits()).tolist() == pytest.approx(list(expected), abs=1e-5)


def test_a_uniform_difference_is_at_1_and_the_least_of_a_batch_at_0():
    rows = torch.tensor([[2.0, 2.0, 2.0], [9.0, 0.0, 0.0], [50.0, 0.0, 0.0]])
    uniform, middle, certain = normalized_entropy(rows).tolist()
    assert uniform == pytest.approx(1.0, abs=1e-5)
    assert 0 < middle < 0.01
    assert certain == 0


def test_equal_models_give_finite_losses_and_gradients():
    difference = torch.zeros(4, 7, requires_grad=True)
    loss = margin_loss(normalized_entropy(difference), 0.3, 0.8)
    loss.backward()
    assert loss.item() == pytest.approx(0.3)
    assert difference.grad.isfinite().all()


def test_margins_are_hinges_on_both_sides():
    # below 0.3 by 0.3 and 0.1, above 0.8 by 0.2
    loss = margin_loss(torch.tensor([0.0, 0.2, 0.5, 1.0]), 0.3, 0.8)
    assert loss.item() == pytest.approx((0.3 + 0.1) / 4 + 0.2 / 4)


def test_the_generator_s_loss_has_the_code_s_three_terms():
    teacher = untrained("digits_vit")
    student = disturbed(teacher, 0.2)
    images = torch.randn(4, 1, 16, 16, generator=seeded())
    labels = torch.tensor([4, 0, 9, 1])
    mixture = Mixture.of(labels[:, None], torch.ones(4, 1), 10)
    losses = Adadfq(AdadfqConfig()).losses(images, mixture, teacher, student)
    with torch.no_grad():
        p, q = teacher.model(images).double().numpy(), student(images).double().numpy()
    wrong = [-np.log(softmax(x, axis=1)[range(4), labels]).mean() for x in (p - q, p + q)]
    h = entropy(softmax(p - q, axis=1), axis=1)
    h = (h - h.min()) / (math.log(10) - h.min())
    margin = np.maximum(0.3 - h, 0).mean() + np.maximum(h - 0.8, 0).mean()
    assert {name: loss.item() for name, loss in losses.items()} == {
        "margin": pytest.approx(margin, rel=1e-3),
        "disagreement": pytest.approx(0.2 * wrong[0], rel=1e-4),
        "agreement": pytest.approx(0.1 * wrong[1], rel=1e-4),
    }


def test_gradients_reach_the_images_through_both_models():
    teacher = untrained("digits_vit")
    student = disturbed(teacher).requires_grad_(False)
    mixture = Mixture.of(torch.tensor([[4], [0]]), torch.ones(2, 1), 10)
    config = AdadfqConfig(disagreement_weight=0.0, agreement_weight=0.0)

    def gradient(model: torch.nn.Module) -> torch.Tensor:
        images = torch.randn(2, 1, 16, 16, generator=seeded()).requires_grad_()
        losses = Adadfq(config).losses(images, mixture, teacher, model)
        return torch.autograd.grad(losses["margin"], images)[0]

    blind = gradient(lambda images: student(images.detach()))
    assert gradient(student).abs().sum() > 0
    assert not torch.allclose(gradient(student), blind)


def test_the_first_set_is_made_without_the_student():
    teacher = untrained("digits_vit")
    alone = synthesizer("adadfq").synthesize(SynthesisTask(teacher, generator=seeded()))
    together = synthesizer("adadfq").synthesize(
        SynthesisTask(teacher, generator=seeded(), student=disturbed(teacher))
    )
    gdfq = synthesizer("gdfq", milestones=[]).synthesize(SynthesisTask(teacher, generator=seeded()))
    assert torch.equal(alone.images, together.images)
    assert torch.equal(alone.images, gdfq.images)
    assert set(alone.final_losses) == {"one_hot"}


def test_a_later_set_needs_the_student_and_leaves_it_as_it_was():
    teacher = untrained("digits_vit")
    student = disturbed(teacher)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    maker = synthesizer("adadfq")
    first = maker.synthesize(SynthesisTask(teacher, generator=seeded()))
    with pytest.raises(ValueError, match="needs the student"):
        maker.synthesize(SynthesisTask(teacher, generator=seeded(), epoch=1))
    later = maker.synthesize(
        SynthesisTask(teacher, generator=seeded(), student=student, epoch=1, previous=first)
    )
    assert set(later.final_losses) == {"margin", "disagreement", "agreement"}
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in student.parameters())


def test_generator_steps_come_near_the_code_s_over_200_epochs():
    maker = Adadfq(AdadfqConfig())
    sets = [0, *(epoch for epoch in range(1, 200) if maker.refreshes_at(epoch))]
    assert sum(maker.iterations_at(epoch) for epoch in sets) == 79_650
    assert maker.learning_rate_at(9_999, 0) == maker.learning_rate_at(0, 199) == 1e-3
    assert not Adadfq(AdadfqConfig(refresh_every=0)).refreshes_at(5)


def test_the_student_s_loss_equals_scipy_and_is_blind_to_a_constant():
    teacher, student = logits(), logits(seed=1)
    h = entropy(softmax((teacher - student).numpy() / 5, axis=1), axis=1)
    assert entropy_of_difference(teacher, student, 5.0).item() == pytest.approx(-25 * h.mean(), rel=1e-5)
    least = entropy_of_difference(teacher, teacher + 3, 5.0)
    assert least.item() == pytest.approx(-25 * math.log(7), rel=1e-5)


def test_the_engine_trains_on_that_loss_and_asks_for_new_sets():
    method = get_method("adadfq")
    preset = method.engine_settings(AdadfqConfig())
    assert dict(preset) == {"head_distillation": "none", "distillation": "adadfq"}
    overrides = {**preset, "epochs": 3, "learning_rate": 0.01, "batch_size": 8}
    engine = get_engine("lsq_qat")
    maker = Adadfq(configure(AdadfqConfig, "smoke", {"images": 16, "batch_size": 8, "refresh_every": 2}))
    teacher = tiny("digits_vit")
    source = CoupledImages(maker, teacher, seeded())
    losses = []
    engine(configure(engine.Config, "smoke", overrides)).quantize(
        QuantizationTask(
            teacher,
            source,
            Bits(4, 4),
            generator=seeded(),
            progress=lambda step, total, terms: losses.append(terms),
        )
    )
    assert set(losses[-1]) == {"logits"}
    assert -25 * math.log(10) < losses[-1]["logits"] < 0
    assert set(source.latest.final_losses) == {"margin", "disagreement", "agreement"}
