"""ERQ's two steps against the released functions, by hand and against brute force."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from methods.quantization.error_reduction import (
    EntryGrids,
    Moments,
    fit_to_quantized_inputs,
    refined,
    round_by_halves,
)
from methods.quantization.percentile import PercentileQuantizer
from methods.quantization.weight_grids import GridWeights
from tests.golden import chirp, sine

TOLERANCE = 1e-3
"""Of the released values: inverses of matrices, in their case in float32."""


@pytest.fixture
def layer():
    """Moments and weights with bias of the released example."""
    x = chirp((4, 60, 24), 0.29, 0.4, 1.0)
    weight, bias = chirp((20, 24), 0.37, 0.2, 0.5) + 0.02, sine((20,), 0.5, 0.1, 0.1)
    quantizer = PercentileQuantizer(4)
    quantizer.fit(x)
    moments = Moments.of(quantizer.quantize(x), F.linear(x, weight, bias))
    return moments, torch.cat([weight, bias[:, None]], dim=1).double()


def assert_released(found, case):
    weight, bias = found[:, :-1], found[:, -1]
    assert weight.sum().item() == pytest.approx(case["sum"], rel=TOLERANCE)
    assert weight.abs().sum().item() == pytest.approx(case["abs_sum"], rel=TOLERANCE)
    assert weight.flatten()[:8].tolist() == pytest.approx(case["first8"], rel=TOLERANCE, abs=1e-6)
    assert bias.sum().item() == pytest.approx(case["bias_sum"], rel=TOLERANCE)


def grids_for(weight, bits):
    grid = GridWeights(weight[:, :-1].float(), bits)
    return EntryGrids(grid.scale.double(), grid.zero_point.double(), bits)


def test_weights_fitted_to_quantized_inputs_are_those_of_the_released_code(golden, layer):
    moments, weight = layer
    fitted = fit_to_quantized_inputs(weight, moments, 10.0)
    assert_released(fitted, golden["erq.aqer"])
    change = (fitted - weight)[:, :-1].abs().max().item()
    assert change == pytest.approx(golden["erq.aqer"]["max_change"], rel=TOLERANCE)


def test_rounding_by_halves_is_that_of_the_released_code(golden, layer):
    moments, weight = layer
    fitted = fit_to_quantized_inputs(weight, moments, 10.0)
    rounded = round_by_halves(fitted, grids_for(fitted, 4), moments, 10.0, refinement_steps=100)
    assert_released(rounded, golden["erq.wqer"])


def test_the_fit_is_ridge_regression_by_hand():
    """One input that is always 2, quantized to 1, and a bias: A'A = 4 in all entries, A'O = 4 * 6."""
    moments = Moments.of(torch.ones(4, 1), torch.full((4, 1), 6.0))
    weight = torch.tensor([[3.0, 0.0]], dtype=torch.float64)  # gives 6 from 2, but 3 from 1
    # (A'A + 2 I)^-1 A'(6 - 3) = [[6, 4], [4, 6]]^-1 [12, 12] = [1.2, 1.2]
    assert fit_to_quantized_inputs(weight, moments, 2.0).tolist() == [pytest.approx([4.2, 1.2])]


def test_moments_add_up_over_batches():
    x, output = chirp((6, 5, 4), 0.3, 0.1, 1.0), chirp((6, 5, 3), 0.7, 0.2, 1.0)
    whole, parts = Moments.of(x, output), Moments.of(x[:2], output[:2])
    parts.add(Moments.of(x[2:], output[2:]))
    torch.testing.assert_close(parts.gram, whole.gram)
    torch.testing.assert_close(parts.cross, whole.cross)
    assert parts.tokens == whole.tokens == 30


def test_columns_that_are_left_take_up_the_error():
    """Where inputs hang together, nearer to the output than rounding to nearest, all weights on the grid."""
    generator = torch.Generator().manual_seed(0)
    hidden, mixing = torch.randn(400, 6, generator=generator), torch.randn(6, 24, generator=generator)
    x = hidden @ mixing + 0.3 * torch.randn(400, 24, generator=generator)
    weight = torch.randn(10, 25, generator=generator, dtype=torch.float64)
    moments = Moments.of(x, F.linear(x, weight[:, :-1].float(), weight[:, -1].float()))
    grids = grids_for(weight, 4)
    nearest = weight.clone()
    nearest[:, :-1] += grids.errors(weight, slice(0, 24))[0]
    rounded = round_by_halves(weight, grids, moments, 1.0, refinement_steps=100)
    codes = rounded[:, :-1] / grids.scale + grids.zero_point
    torch.testing.assert_close(codes, codes.round().clamp(0, 15))

    def energy(found):
        d = found - weight
        return (d @ moments.gram * d).sum().item()

    assert energy(rounded) < 0.5 * energy(nearest)


def test_refined_directions_never_cost_more_and_come_near_the_best():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 6, generator=generator, dtype=torch.float64) + 1.0
    matrix = inputs.T @ inputs / 200
    down = -torch.rand(8, 6, generator=generator, dtype=torch.float64)
    up = down + 1
    nearest = torch.where(-down <= up, down, up)

    def cost(d):
        return (d @ matrix * d).sum(dim=1)

    found = refined(nearest, down, up, matrix, steps=100)
    assert ((found == down) | (found == up)).all()
    assert (cost(found) <= cost(nearest)).all()
    choices = [
        torch.where(torch.tensor(mask), up, down) for mask in itertools.product((False, True), repeat=6)
    ]
    best = torch.stack([cost(d) for d in choices]).min(dim=0).values
    assert cost(found).sum() < cost(nearest).sum()
    assert cost(found).sum() < best.sum() + 0.5 * (cost(nearest).sum() - best.sum())
    assert torch.equal(refined(nearest, down, up, matrix, steps=0), nearest)
