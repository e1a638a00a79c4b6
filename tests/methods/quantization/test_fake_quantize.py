"""The arithmetic of quantizers, against released values, hand-worked ones and a naive reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.quantization.fake_quantize import (
    Constants,
    asymmetric_parameters,
    fake_quantize,
    fake_quantize_constant,
    signed_grid,
    symmetric_weights,
    symmetric_weights_straight_through,
    unsigned_grid,
)
from tests.golden import sine

BITS = st.integers(2, 8)
VALUES = st.lists(
    st.floats(-1e3, 1e3, width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40
)
WEIGHTS = sine((6, 40), 0.7, 0.1, 0.5)


def assert_released(values: torch.Tensor, case: dict) -> None:
    assert values.double().sum().item() == pytest.approx(case["sum"], rel=1e-4)
    assert values.double().abs().sum().item() == pytest.approx(case["abs_sum"], rel=1e-4)
    assert values.flatten()[:8].tolist() == pytest.approx(case["first8"], rel=1e-4, abs=1e-6)


def naive(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, grid: tuple[int, int]):
    """The formula in autograd's own operations, rounding straight-through by detaching the residue."""

    def rounded(v: torch.Tensor) -> torch.Tensor:
        return v + (v.round() - v).detach()

    shift = rounded(zero_point)
    return (rounded((x / scale + shift).clamp(*grid)) - shift) * scale


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_straight_through_weights_match_the_released_code(golden, bits):
    assert_released(symmetric_weights_straight_through(WEIGHTS, bits), golden[f"lsq_qat.weight_w{bits}"])


@pytest.mark.parametrize("bits", [4, 8])
def test_symmetric_weights_match_the_released_code(golden, bits):
    assert_released(symmetric_weights(WEIGHTS, bits), golden[f"psaq_ptq.weight_w{bits}"])


@pytest.mark.parametrize("bits", [4, 8])
def test_asymmetric_activations_match_the_released_code(golden, bits):
    x = sine((2, 5, 40), 0.3, 0.2, 2.0) + 0.4
    scale, zero_point = asymmetric_parameters(x.min(), x.max(), bits)
    assert_released(fake_quantize(x, scale, zero_point, unsigned_grid(bits)), golden[f"psaq_ptq.act_a{bits}"])


def test_weights_by_hand():
    # 3 bits, max 1: the step is 2/7. 1.0 lies on 3.5 steps, rounds to 4 and is cut to 3.
    weight = torch.tensor([[1.0, 0.5, -0.1, 0.0]])
    expected = [6 / 7, 4 / 7, 0.0, 0.0]
    assert symmetric_weights(weight, 3)[0].tolist() == pytest.approx(expected)
    assert symmetric_weights_straight_through(weight, 3)[0].tolist() == pytest.approx(expected)


def test_weights_are_quantized_per_output_channel():
    weight = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    weight[1] *= 100
    for quantize in (symmetric_weights, symmetric_weights_straight_through):
        together = quantize(weight, 4)
        alone = torch.cat([quantize(row[None], 4) for row in weight])
        assert torch.equal(together, alone)


@pytest.mark.parametrize("quantize", [symmetric_weights, symmetric_weights_straight_through])
def test_a_dead_channel_stays_zero(quantize):
    weight = torch.stack([torch.zeros(5), torch.linspace(-1, 1, 5), torch.full((5,), 1e-38)])
    quantized = quantize(weight, 4)
    assert quantized.isfinite().all()
    assert quantized[0].eq(0).all()


def test_weight_gradient_is_the_identity_even_where_it_is_clipped():
    weight = WEIGHTS.clone().requires_grad_()
    gradient = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    symmetric_weights_straight_through(weight, 3).backward(gradient)
    assert torch.equal(weight.grad, gradient)


def test_asymmetric_parameters_by_hand():
    scale, zero_point = asymmetric_parameters(torch.tensor(-1.0), torch.tensor(2.0), 2)
    assert (scale.item(), zero_point.item()) == (1.0, 1.0)
    _, above = asymmetric_parameters(torch.tensor(5.0), torch.tensor(6.0), 4)
    _, below = asymmetric_parameters(torch.tensor(-6.0), torch.tensor(-5.0), 4)
    assert (above.item(), below.item()) == (0.0, 15.0)


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_a_range_without_width_gives_finite_values(value):
    x = torch.full((4,), value)
    scale, zero_point = asymmetric_parameters(x.min(), x.max(), 8)
    assert fake_quantize(x, scale, zero_point, unsigned_grid(8)).isfinite().all()


@given(bits=BITS, values=VALUES)
def test_weight_quantizers_have_few_levels_keep_zero_and_order(bits, values):
    weight = torch.tensor([sorted([*values, 0.0])])
    for quantize in (symmetric_weights, symmetric_weights_straight_through):
        quantized = quantize(weight, bits)
        assert len(quantized.unique()) <= 2**bits
        assert quantized.diff().ge(0).all()
        assert quantized[weight == 0].eq(0).all()
        step = 2 * weight.abs().max() / (2**bits - 1)
        assert (quantized - weight).abs().max() <= step * 0.501 + 1e-6


@given(bits=BITS, values=VALUES)
def test_min_max_activations_have_few_levels_and_order_and_repeat_themselves(bits, values):
    x = torch.tensor(sorted([*values, 0.0]))
    grid = unsigned_grid(bits)
    scale, zero_point = asymmetric_parameters(x.min(), x.max(), bits)
    once = fake_quantize(x, scale, zero_point, grid)
    assert len(once.unique()) <= 2**bits
    assert once.diff().ge(0).all()
    assert once[x == 0].eq(0).all()
    assert (once - x).abs().max() <= scale * 1.001 + 1e-6  # half a step, and half more from the zero point
    assert torch.equal(fake_quantize(once, scale, zero_point, grid), once)


@given(bits=BITS, values=VALUES, scale=st.floats(0.01, 100), zero_point=st.floats(-300, 300))
def test_frozen_arithmetic_equals_the_learnable_one(bits, values, scale, zero_point):
    x, s, z = torch.tensor(values), torch.tensor(scale), torch.tensor(zero_point)
    for grid in (signed_grid(bits), unsigned_grid(bits)):
        constants = Constants.read(s, z, grid)
        assert torch.equal(fake_quantize_constant(x, constants), fake_quantize(x, s, z, grid))


@pytest.mark.parametrize("grid", [signed_grid(3), unsigned_grid(3)])
@pytest.mark.parametrize("zero_point", [-1.3, 2.0, 30.0])
def test_gradients_equal_those_of_the_formula(grid, zero_point):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(400, generator=generator) * 3
    gradient = torch.randn(400, generator=generator)
    results = []
    for function in (naive, fake_quantize):
        inputs = [x.clone(), torch.tensor(0.7), torch.tensor(zero_point)]
        for tensor in inputs:
            tensor.requires_grad_()
        y = function(*inputs, grid)
        y.backward(gradient)
        results.append([y.detach(), *(tensor.grad for tensor in inputs)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_gradients_by_hand():
    # Levels -2..1, scale 0.5, zero point 0: the range is [-1, 0.5].
    x = torch.tensor([0.2, 0.5, 3.0, -4.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    zero_point = torch.tensor(0.0, requires_grad=True)
    y = fake_quantize(x, scale, zero_point, signed_grid(2), scale_gradient_factor=0.1)
    y.sum().backward()
    assert y.tolist() == [0.0, 0.5, 0.5, -1.0]
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]
    # Rounding residues 0 - 0.4 and 1 - 1 inside, levels 1 and -2 outside.
    assert scale.grad.item() == pytest.approx(0.1 * (-0.4 + 0 + 1 - 2))
    assert zero_point.grad.item() == pytest.approx(-0.5 * 2)


def test_frozen_gradient_passes_inside_the_range_alone():
    constants = Constants.read(torch.tensor(0.5), torch.tensor(0.0), signed_grid(2))
    x = torch.tensor([-1.01, -1.0, 0.2, 0.5, 0.51], requires_grad=True)
    fake_quantize_constant(x, constants).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_scale_that_is_not_positive_is_floored(scale):
    s = torch.tensor(scale, requires_grad=True)
    y = fake_quantize(torch.tensor([0.0, 1.0, -1.0]), s, torch.tensor(0.0), signed_grid(4))
    y.sum().backward()
    assert y.isfinite().all()
    assert math.isfinite(s.grad.item())


def test_not_a_number_is_handed_on():
    x = torch.tensor([math.nan, 1.0])
    s, z = torch.tensor(1.0), torch.tensor(0.0)
    assert fake_quantize(x, s, z, signed_grid(4)).isnan().tolist() == [True, False]
    assert symmetric_weights_straight_through(x[None], 4).isnan().all()
