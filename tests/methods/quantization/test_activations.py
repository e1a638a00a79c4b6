"""Activation quantizers: where their ranges come from, and what a stored state restores."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from methods.quantization import frozen
from methods.quantization.activations import MinMaxQuantizer, observing
from methods.quantization.fake_quantize import signed_grid, unsigned_grid
from methods.quantization.lsq import LsqQuantizer, least_squares_range
from tests.golden import sine

X = sine((2, 5, 40), 0.3, 0.2, 2.0)


def calibrated(bits: int, *batches: torch.Tensor) -> MinMaxQuantizer:
    quantizer = MinMaxQuantizer(bits)
    with observing(quantizer):
        for batch in batches:
            quantizer(batch)
    return quantizer


def test_observer_joins_the_extremes_of_all_batches():
    quantizer = calibrated(8, torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 0.5]))
    assert (quantizer.low.item(), quantizer.high.item()) == (-3.0, 2.0)


def test_a_first_batch_of_zeros_counts_as_observed():
    quantizer = calibrated(8, torch.zeros(3), torch.tensor([-2.0, -1.0]))
    assert (quantizer.low.item(), quantizer.high.item()) == (-2.0, 0.0)


def test_observing_anew_forgets_the_old_range():
    quantizer = calibrated(8, torch.tensor([-100.0, 100.0]))
    with observing(quantizer):
        quantizer(torch.tensor([1.0, 2.0]))
    assert (quantizer.low.item(), quantizer.high.item()) == (1.0, 2.0)


def test_values_pass_while_observing_and_before_and_are_quantized_after():
    quantizer = MinMaxQuantizer(2)
    assert torch.equal(quantizer(X), X)
    with observing(quantizer):
        assert torch.equal(quantizer(X), X)
    assert len(quantizer(X).unique()) == 4


def test_not_a_number_ends_up_in_the_range():
    assert calibrated(8, X, torch.tensor([math.nan])).low.isnan()


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_lsq_matches_the_released_code(golden, bits):
    case = golden[f"lsq_qat.act_a{bits}"]
    y = LsqQuantizer(bits, released_start=True)(X)
    assert y.double().sum().item() == pytest.approx(case["sum"], rel=1e-4)
    assert y.double().abs().sum().item() == pytest.approx(case["abs_sum"], rel=1e-4)
    assert y.flatten()[:8].tolist() == pytest.approx(case["first8"], rel=1e-4, abs=1e-6)


def test_lsq_gradients_match_the_released_code(golden):
    case = golden["lsq_qat.act_a4_gradients"]
    quantizer = LsqQuantizer(4, released_start=True)
    quantizer(X)
    y = quantizer(X + sine((2, 5, 40), 0.05, 1.0, 0.3))
    y.square().sum().backward()
    assert quantizer.scale.item() == pytest.approx(case["alpha"], rel=1e-5)
    assert quantizer.zero_point.item() == pytest.approx(case["zero_point"], rel=1e-5)
    assert y.sum().item() == pytest.approx(case["output_sum"], rel=1e-4)
    assert quantizer.scale.grad.item() == pytest.approx(case["grad_alpha"], rel=1e-4)
    assert quantizer.zero_point.grad.item() == pytest.approx(case["grad_zero_point"], abs=1e-5)


def test_g_scale_scales_the_gradient_of_the_scale_alone():
    gradients = []
    for g_scale in (1.0, 0.01):
        quantizer = LsqQuantizer(3, released_start=True, g_scale=g_scale)
        quantizer(X)
        quantizer(3 * X).square().sum().backward()
        gradients.append((quantizer.scale.grad.item(), quantizer.zero_point.grad.item()))
    (scale, zero_point), (scale_small, zero_point_small) = gradients
    assert zero_point != 0
    assert zero_point_small == zero_point
    assert scale_small == pytest.approx(0.01 * scale)


@pytest.mark.parametrize(
    ("unsigned", "lowest_value", "levels"),
    [
        (False, -1.0, signed_grid(4)),
        (False, 1e-6, signed_grid(4)),
        (False, 0.1, unsigned_grid(4)),
        (True, 1e-6, unsigned_grid(4)),
    ],
)
def test_which_levels_the_first_tensor_chooses(unsigned, lowest_value, levels):
    quantizer = LsqQuantizer(4, unsigned=unsigned)
    quantizer(torch.tensor([lowest_value, 1.0]))
    assert quantizer.parameters_now()[2] == levels


@given(bits=st.integers(2, 8), values=st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=30))
def test_least_squares_keep_zero_and_are_at_least_as_close_as_min_max(bits, values):
    x = torch.tensor(values)
    quantizer = LsqQuantizer(bits)
    error = (quantizer(x) - x).square().mean()
    low, high = min(0.0, *values), max(0.0, *values)
    step = (high - low) / (2**bits - 1)
    assert error <= step**2 * 1.01 + 1e-9
    assert quantizer(torch.zeros(1)).item() == 0.0


def test_least_squares_cut_an_outlier_that_min_max_would_follow():
    x = torch.cat([torch.linspace(-1, 1, 10_000), torch.tensor([30.0])])
    scale, _ = least_squares_range(x, signed_grid(4))
    assert scale < 31 / 15 / 2


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("value", [0.0, 2.0, -2.0])
def test_a_constant_first_tensor_gives_finite_values_and_gradients(released, value):
    quantizer = LsqQuantizer(4, released_start=released)
    x = torch.full((3,), value, requires_grad=True)
    quantizer(x)
    y = quantizer(x + 1)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert quantizer.scale.grad.isfinite()


@pytest.mark.parametrize(
    ("started", "fresh"),
    [
        (lambda: LsqQuantizer(4, unsigned=True), lambda: LsqQuantizer(4, unsigned=True)),
        (lambda: LsqQuantizer(4, released_start=True), lambda: LsqQuantizer(4, released_start=True)),
        (lambda: MinMaxQuantizer(4), lambda: MinMaxQuantizer(4)),
    ],
)
def test_a_stored_state_restores_the_quantizer(started, fresh):
    original, restored = started(), fresh()
    with observing(original):
        original(X.abs())
    expected = original(3 * X)
    restored.load_state_dict(original.state_dict())
    assert torch.equal(restored(3 * X), expected)
    assert torch.equal(copy.deepcopy(original)(3 * X), expected)


def test_a_quantizer_that_has_run_forgets_its_constants_when_another_state_is_loaded():
    used, other = calibrated(4, X), calibrated(4, 10 * X)
    used(X)
    used.load_state_dict(other.state_dict())
    assert torch.equal(used(X), other(X))


def test_a_quantizer_started_under_inference_mode_can_be_trained():
    quantizer = LsqQuantizer(4)
    with torch.inference_mode():
        quantizer(X)
    quantizer(X).sum().backward()
    assert quantizer.scale.grad is not None


def test_a_quantizer_may_start_while_frozen():
    model = nn.Sequential(LsqQuantizer(4, released_start=True))
    with frozen(model):
        inside = model(X)
    assert torch.equal(model(X), inside)
