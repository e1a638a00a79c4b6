"""RepQ-ViT's quantizers: percentile ranges, log-sqrt2 levels, and fitting from the first tensor."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from methods.quantization.fitting import fitted_quantizers, fitting
from methods.quantization.log_sqrt2 import LogSqrt2Quantizer, quantize_log_sqrt2
from methods.quantization.percentile import (
    TAILS,
    PercentileQuantizer,
    PercentileWeights,
    least_squares_percentile,
    quantize_uniform,
    tail_quantiles,
)
from tests.golden import sine


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(quantizer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with fitting(quantizer):
        return quantizer(x)


def assert_released(values: torch.Tensor, case: dict) -> None:
    assert values.double().sum().item() == pytest.approx(case["sum"], rel=1e-4)
    assert values.double().abs().sum().item() == pytest.approx(case["abs_sum"], rel=1e-4)
    assert values.flatten()[:8].tolist() == pytest.approx(case["first8"], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("bits", [4, 6])
def test_uniform_quantizer_matches_the_released_code(golden, bits):
    values = fitted(PercentileQuantizer(bits), sine((2, 5, 40), 0.3, 0.2, 2.0))
    assert_released(values, golden[f"repq_ptq.uniform_a{bits}"])


@pytest.mark.parametrize("bits", [4, 6])
def test_log_sqrt2_quantizer_matches_the_released_code(golden, bits):
    values = fitted(LogSqrt2Quantizer(bits), sine((2, 3, 20, 20), 0.31, 0.2, 3.0).softmax(dim=-1))
    assert_released(values, golden[f"repq_ptq.log_sqrt2_a{bits}"])


@pytest.mark.parametrize("n", [1, 2, 3, 999, 1001, 50_000])
def test_tail_quantiles_are_those_of_torch(n):
    x = seeded(3, n)
    low, high = tail_quantiles(x)
    tails = torch.tensor(TAILS, dtype=torch.float64)
    torch.testing.assert_close(low, x.double().quantile(tails, dim=1).float())
    torch.testing.assert_close(high, x.double().quantile(1 - tails, dim=1).float())


def test_tail_quantiles_of_more_than_sixteen_million_values_are_exact():
    n = 16_000_001
    low, high = tail_quantiles(torch.arange(n, dtype=torch.float32)[None])
    expected = torch.tensor(TAILS) * (n - 1)
    torch.testing.assert_close(low[:, 0], expected)
    torch.testing.assert_close(high[:, 0], n - 1 - expected)


def test_the_candidate_of_least_squared_error_is_chosen():
    # A step of 100 / 3 has no level near the bulk; without the outlier the four levels fit it.
    x = torch.cat([torch.linspace(0, 3, 9_999), torch.tensor([8.0])])[None]
    candidates = torch.stack(tail_quantiles(x))[:, :, 0]
    errors = []
    for low, high in candidates.T:
        scale = (high - low) / 3
        codes = ((x / scale).round() + (-low / scale).round()).clamp(0, 3)
        errors.append((((codes - (-low / scale).round()) * scale - x) ** 2).mean().item())
    scale, _ = least_squares_percentile(x, 2)
    low, high = candidates.T[errors.index(min(errors))]
    assert scale.item() == pytest.approx(((high - low) / 3).item())
    assert len({round(error, 6) for error in errors}) > 1


def test_ranges_of_rows_are_those_of_each_row_alone():
    x = seeded(4, 500) * torch.tensor([[1.0], [10.0], [0.1], [0.0]]) + 3
    together = least_squares_percentile(x, 4)
    for index, row in enumerate(x):
        alone = least_squares_percentile(row[None], 4)
        assert together.scale[index] == alone.scale[0]
        assert together.zero_point[index] == alone.zero_point[0]


@pytest.mark.parametrize("value", [0.0, 0.7, -0.7, 1e-30, 1e6])
def test_a_constant_keeps_its_value_and_a_small_zero_point(value):
    x = torch.full((1, 50), value)
    scale, zero_point = least_squares_percentile(x, 4)
    assert 0 <= zero_point.item() <= 15
    torch.testing.assert_close(quantize_uniform(x, scale, zero_point, 4), x, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_range_of_values_that_are_not_finite_is_nan(broken):
    x = seeded(2, 5_000)
    x[1, 7] = broken
    scale, _ = least_squares_percentile(x, 4)
    assert scale.isnan().tolist() == [False, True]
    quantizer = LogSqrt2Quantizer(4)
    fitted(quantizer, x.abs())
    assert quantizer.scale.isnan()


def test_uniform_levels_by_hand():
    # 2 bits, zero point 1: codes 0..3 stand for -0.5, 0, 0.5, 1.
    x = torch.tensor([-9.0, -0.3, -0.2, 0.2, 0.3, 0.8, 9.0])
    values = quantize_uniform(x, torch.tensor(0.5), torch.tensor(1.0), 2)
    assert values.tolist() == [-0.5, -0.5, 0.0, 0.0, 0.5, 1.0, 1.0]


def test_a_fractional_zero_point_moves_the_ends_alone():
    x = torch.tensor([-9.0, 0.4, 9.0])
    values = quantize_uniform(x, torch.tensor(1.0), torch.tensor(0.25), 2)
    assert values.tolist() == [-0.25, 0.0, 2.75]


def test_log_sqrt2_levels_by_hand():
    # 2 bits, scale 1: 1, 0.7071, 0.5, 0.3536 and, from n = 3.5 on (0.2973), zero.
    x = torch.tensor([2.0, 1.0, 0.7, 0.5, 0.3, 0.29, 1e-30, 0.0])
    root = math.sqrt(0.5)
    expected = torch.tensor([1.0, 1.0, root, 0.5, root / 2, 0.0, 0.0, 0.0])
    torch.testing.assert_close(quantize_log_sqrt2(x, torch.tensor(1.0), 2), expected)


@given(st.integers(2, 8), st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_log_sqrt2_is_the_released_two_part_formula(bits, values):
    x, scale = torch.tensor(values), 0.8
    quantized = quantize_log_sqrt2(x, torch.tensor(scale), bits).tolist()
    for value, actual in zip(values, quantized, strict=True):
        exponent = -2 * math.log2(value / scale) if value > 0 else math.inf
        if abs(exponent % 1 - 0.5) < 1e-3:
            continue  # a tie, which rounding in float32 may break either way
        n = max(0, round(exponent)) if exponent < 2**bits - 0.5 else None
        expected = 0.0 if n is None else scale * 2 ** -math.ceil(n / 2) * (1 + (2**0.5 - 1) * (n % 2))
        assert actual == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("function", "passes"),
    [
        (lambda x: quantize_uniform(x, torch.tensor(0.1), torch.tensor(5.0), 4), [0, 1, 1, 1, 1, 0]),
        (lambda x: quantize_log_sqrt2(x, torch.tensor(0.9), 4), [0, 0, 1, 1, 1, 0]),
    ],
)
def test_gradients_are_straight_through_and_stop_at_the_ends(function, passes):
    x = torch.tensor([-3.0, -0.3, 0.0, 1e-6, 0.4, 1.2], requires_grad=True)
    function(x).backward(torch.arange(1.0, 7.0))
    assert x.grad.tolist() == [keep * (index + 1) for index, keep in enumerate(passes)]


def test_a_quantizer_passes_values_until_it_is_fitted_and_then_keeps_its_range():
    quantizer, x = PercentileQuantizer(2), seeded(40)
    assert torch.equal(quantizer(x), x)
    first = fitted(quantizer, x)
    assert len(first.unique()) <= 4
    scale = quantizer.scale.clone()
    fitted(quantizer, 100 * x)
    assert torch.equal(quantizer.scale, scale)
    assert torch.equal(quantizer(x), first)


def test_what_comes_behind_is_fitted_to_quantized_values():
    chain = nn.Sequential(PercentileQuantizer(2), PercentileQuantizer(8))
    x = seeded(1000)
    fitted(chain, x)
    alone = PercentileQuantizer(8)
    fitted(alone, chain[0](x))
    assert torch.equal(chain[1].scale, alone.scale)
    assert list(fitted_quantizers(chain)) == ["0", "1"]


def test_per_channel_ranges_follow_the_last_axis():
    x = seeded(2, 300, 3) * torch.tensor([1.0, 5.0, 0.2])
    quantizer = PercentileQuantizer(4, per_channel=True)
    values = fitted(quantizer, x)
    for channel in range(3):
        expected = fitted(PercentileQuantizer(4), x[..., channel])
        torch.testing.assert_close(values[..., channel], expected)


@pytest.mark.parametrize("shape", [(5, 40), (4, 3, 6, 6)])
def test_weights_have_a_range_per_output_channel(shape):
    weight = seeded(*shape) * torch.linspace(0, 2, shape[0]).view(-1, *[1] * (len(shape) - 1))
    quantized = PercentileWeights(weight, 3)(weight)
    for channel, expected in zip(weight, quantized, strict=True):
        scale, zero_point = least_squares_percentile(channel.reshape(1, -1), 3)
        assert torch.equal(quantize_uniform(channel, scale[0], zero_point[0], 3), expected)
