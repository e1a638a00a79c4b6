import itertools
import math

import pytest
import torch

from methods.synthesis.attention_priors import (
    gaussian_patch_entropy,
    head_ssim_loss,
    informative_mask,
    masked_alignment,
    patch_attention,
)
from tests.golden import sine


def teacher_logits() -> torch.Tensor:
    """Two layers of a DeiT with two images and three heads."""
    return sine((2, 2, 3, 197, 197), 0.0137, 0.3, 4.0).requires_grad_()


def random(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def assert_golden(case: dict, value: torch.Tensor, *inputs: torch.Tensor) -> None:
    value.backward()
    assert value.item() == pytest.approx(case["value"], rel=1e-4)
    for number, tensor in enumerate(inputs):
        expected = case[f"grad_norm_of_input_{number}"]
        assert tensor.grad.norm().item() == pytest.approx(expected, rel=1e-4)


def test_head_ssim_matches_the_released_function(golden):
    logits = teacher_logits()
    value = torch.stack([head_ssim_loss(layer, prefix_tokens=1) for layer in logits]).mean()
    assert_golden(golden["maskaq.head_ssim"], value, logits)


def test_head_ssim_of_swin_matches_the_released_function(golden):
    logits = sine((8, 3, 49, 49), 0.0137, 0.3, 4.0).requires_grad_()
    assert_golden(golden["mimiq.head_ssim_swin"], head_ssim_loss(logits, prefix_tokens=0), logits)


def test_head_ssim_matches_a_loop_over_maps():
    logits = random(2, 3, 7, 7)
    losses = []
    for image, query in itertools.product(range(2), range(1, 7)):
        maps = [logits[image, head, query, 1:] for head in range(3)]
        maps = [(m - m.min()) / ((m - m.min()).max() + 1e-8) for m in maps]
        for x, y in itertools.product(maps, maps):
            covariance = ((x - x.mean()) * (y - y.mean())).mean()
            luminance = (2 * x.mean() * y.mean() + 1e-4) / (x.mean() ** 2 + y.mean() ** 2 + 1e-4)
            structure = (2 * covariance + 9e-4) / (x.var(correction=0) + y.var(correction=0) + 9e-4)
            losses.append(1 - (luminance * structure) ** 2)
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(head_ssim_loss(logits, prefix_tokens=1), expected)


def test_head_ssim_derivative():
    logits = random(1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: head_ssim_loss(z, prefix_tokens=1), logits)


def test_heads_that_see_the_same_up_to_scale_lose_nothing():
    one = random(2, 1, 9, 9)
    logits = torch.cat([one, 3 * one + 2, 0.5 * one - 1], dim=1)
    assert head_ssim_loss(logits, prefix_tokens=1).item() == pytest.approx(0, abs=1e-6)


def test_a_constant_map_gives_a_finite_derivative():
    logits = torch.zeros(1, 2, 5, 5, requires_grad=True)
    head_ssim_loss(logits, prefix_tokens=0).backward()
    assert logits.grad.isfinite().all()


def test_row_entropy_matches_the_released_function(golden):
    logits = teacher_logits()
    value = -torch.stack([gaussian_patch_entropy(layer, prefix_tokens=1) for layer in logits]).mean()
    assert_golden(golden["maskaq.patch_entropy"], value, logits)


def test_row_entropy_takes_each_image_s_own_rows():
    logits = random(2, 3, 10, 10)
    rows = torch.tensor([[0, 3, 8], [5, 1, 2]])
    expected = []
    for image in range(2):
        chosen = logits[image].mean(0)[1:, 1:][rows[image]]
        unit = chosen / chosen.norm(dim=1, keepdim=True)
        variance = (unit @ unit.T).var(correction=0) + 1e-8
        expected.append(0.5 * math.log(2 * math.pi * math.e * variance.item()))
    value = gaussian_patch_entropy(logits, rows, prefix_tokens=1)
    assert value.item() == pytest.approx(sum(expected) / 2)


def test_row_entropy_derivative():
    logits = random(2, 2, 5, 5).requires_grad_()
    rows = torch.tensor([[0, 2, 3], [1, 3, 0]])
    assert torch.autograd.gradcheck(lambda z: gaussian_patch_entropy(z, rows, prefix_tokens=1), logits)


def test_mask_matches_the_released_function(golden):
    attention = torch.stack([patch_attention(layer, prefix_tokens=1) for layer in teacher_logits()]).mean(0)
    mask = informative_mask(attention, 0.3)
    case = golden["maskaq.mask_ratio_0.3"]
    assert mask.shape == (2, 196)
    assert mask.sum().item() == case["sum"]
    assert mask.flatten()[:8].tolist() == case["first8"]
    lowest_kept = torch.where(mask > 0, attention, math.inf).amin(1)
    highest_left = torch.where(mask > 0, -math.inf, attention).amax(1)
    assert (lowest_kept > highest_left).all()


@pytest.mark.parametrize(("keep", "left"), [(0.5, 69), (0.1, 13), (0.001, 1)])
def test_mask_drop_leaves_the_published_counts(keep, left):
    attention = random(4, 196)
    noise = torch.rand(4, 196, generator=torch.Generator().manual_seed(2))
    mask = informative_mask(attention, keep, drop=0.3, noise=noise)
    assert mask.sum(1).tolist() == [left] * 4
    assert (informative_mask(attention, keep) >= mask).all()


def test_mask_drop_without_noise_is_refused():
    with pytest.raises(ValueError, match="noise"):
        informative_mask(torch.zeros(1, 4), 0.5, drop=0.3)


def test_alignment_matches_the_released_function(golden):
    teacher, student = teacher_logits(), sine((2, 2, 3, 197, 197), 0.0151, 0.1, 4.0).requires_grad_()
    wanted = [patch_attention(layer, prefix_tokens=1) for layer in teacher]
    given = [patch_attention(layer, prefix_tokens=1) for layer in student]
    mask = informative_mask(torch.stack(wanted).mean(0), 0.3)
    value = torch.stack([masked_alignment(p, q, mask) for p, q in zip(wanted, given, strict=True)]).mean()
    assert_golden(golden["maskaq.masked_alignment"], value, teacher, student)


def test_alignment_by_hand():
    teacher, student = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 4.0, 9.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    assert masked_alignment(teacher, student, mask).item() == pytest.approx((1 + 2) / 2)


def test_patch_attention_of_a_window_is_the_mean_over_queries():
    logits = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert patch_attention(logits, prefix_tokens=0).tolist() == [[2.0, 4.0]]
    assert patch_attention(logits, prefix_tokens=1).tolist() == [[2.0]]
