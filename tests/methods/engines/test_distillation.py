"""Distillation losses against released values and a naive loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from methods.engines.distillation import (
    masked_head_distillation,
    structural_head_distillation,
)
from tests.golden import sine


def heads(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return sine(shape, 0.021, 0.4, 1.0), sine(shape, 0.0213, 0.35, 0.9).requires_grad_()


def assert_released(loss: torch.Tensor, student: torch.Tensor, case: dict) -> None:
    loss.backward()
    assert loss.item() == pytest.approx(case["value"], rel=1e-4)
    assert student.grad.norm().item() == pytest.approx(case["grad_norm_of_input_1"], rel=1e-4)


def test_structural_distillation_matches_the_released_code(golden):
    teacher, student = heads((2, 2, 3, 197, 16))
    loss = structural_head_distillation(list(teacher), list(student), prefix_tokens=1)
    assert_released(loss, student, golden["mimiq.head_distillation"])


def test_masked_distillation_matches_the_released_code(golden):
    teacher, student = heads((2, 2, 3, 197, 16))
    loss = masked_head_distillation(list(teacher), list(student), prefix_tokens=1, ratio=0.1, weight=2.0)
    assert_released(loss, student, golden["maskaq.masked_head_distillation"])


def test_masked_distillation_of_swin_windows_matches_the_released_code(golden):
    teacher, student = heads((8, 3, 49, 16))
    loss = masked_head_distillation([teacher], [student], prefix_tokens=0, ratio=0.1, weight=2.0)
    assert_released(loss, student, golden["maskaq.masked_head_distillation_swin"])


def random_heads(seed: int, shape: tuple[int, ...] = (2, 2, 5, 3)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def naive(teacher: torch.Tensor, student: torch.Tensor, weights: np.ndarray) -> float:
    """NumPy's weighted covariance, one image, head and channel after the other; `weights` (B, N)."""
    similarities = []
    for image in range(teacher.shape[0]):
        for head in range(teacher.shape[1]):
            for channel in range(teacher.shape[3]):
                pair = [teacher[image, head, :, channel].numpy(), student[image, head, :, channel].numpy()]
                c = np.cov(np.stack(pair), aweights=weights[image], ddof=0)
                similarities.append((2 * c[0, 1] + 9e-4) / (c[0, 0] + c[1, 1] + 9e-4))
    return 1 - float(np.mean(similarities))


def test_structural_distillation_equals_a_naive_loop_and_layers_count_alike():
    layers = [
        (random_heads(0), random_heads(1)),
        (random_heads(2, (8, 1, 4, 3)), random_heads(3, (8, 1, 4, 3))),
    ]
    expected = np.mean([naive(p, q, np.ones((p.shape[0], p.shape[2]))) for p, q in layers])
    teacher, student = zip(*layers, strict=True)
    assert structural_head_distillation(teacher, student, prefix_tokens=0).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_masked_distillation_weighs_the_tokens_with_the_largest_teacher_output():
    teacher, student = random_heads(0), random_heads(1)
    teacher[0, :, 3] *= 20
    teacher[1, :, 1] *= 20
    weights = np.ones((2, 5))
    weights[0, 3] = weights[1, 1] = 7
    loss = masked_head_distillation([teacher], [student], prefix_tokens=0, ratio=0.2, weight=7.0)
    assert loss.item() == pytest.approx(naive(teacher, student, weights), rel=1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_equal_heads_lose_nothing_and_prefix_tokens_do_not_count(masked):
    teacher = random_heads(0)
    student = teacher.clone()
    student[:, :, 0] = 100.0
    if masked:
        loss = masked_head_distillation([teacher], [student], prefix_tokens=1, ratio=0.1, weight=2.0)
    else:
        loss = structural_head_distillation([teacher], [student], prefix_tokens=1)
    assert loss.item() == pytest.approx(0.0, abs=1e-5)


def test_dead_heads_give_a_finite_gradient():
    student = torch.zeros(1, 1, 4, 2, requires_grad=True)
    structural_head_distillation([torch.zeros(1, 1, 4, 2)], [student], prefix_tokens=0).backward()
    assert student.grad.isfinite().all()
