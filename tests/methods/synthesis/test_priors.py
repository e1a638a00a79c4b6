import math

import pytest
import torch

from methods.synthesis.priors import one_hot_loss, total_variation, total_variation_by_distance
from tests.golden import sine


@pytest.mark.parametrize(
    ("name", "variation"),
    [("maskaq.tv", total_variation_by_distance), ("psaq_vit.tv_norms", total_variation)],
)
def test_total_variation_matches_the_released_function(golden, name, variation):
    images = sine((2, 3, 32, 32), 0.11, 0.2, 1.0).requires_grad_()
    value = variation(images)
    value.backward()
    assert value.item() == pytest.approx(golden[name]["value"], rel=1e-4)
    assert images.grad.norm().item() == pytest.approx(golden[name]["grad_norm_of_input_0"], rel=1e-4)


def test_total_variation_of_a_two_by_two_image_by_hand():
    images = torch.tensor([[[[0.0, 3.0], [4.0, 0.0]]]])
    # dx: 3, -4; dy: 4, -3; diagonal 0 - 0; antidiagonal 4 - 3
    assert total_variation(images).item() == pytest.approx(5 + 5 + 0 + 1)
    assert total_variation_by_distance(images).item() == pytest.approx(5 + 5 + 1 / math.sqrt(2))


def test_total_variation_derivative():
    images = torch.randn(2, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(total_variation_by_distance, images.requires_grad_())


def test_total_variation_of_a_constant_image_has_no_direction():
    images = torch.ones(1, 1, 3, 3, requires_grad=True)
    total_variation(images).backward()
    assert torch.equal(images.grad, torch.zeros_like(images))


def test_one_hot_loss_is_the_cross_entropy():
    predictions = torch.tensor([[0.0, math.log(3.0)]])
    assert one_hot_loss(predictions, torch.tensor([1])).item() == pytest.approx(-math.log(0.75))
