"""ERQ's weight grids against the released functions and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.quantization.weight_grids import (
    UPPER_QUANTILES,
    GridWeights,
    least_squares_quantiles,
    outlying_columns,
    passing_weights,
)
from tests.golden import chirp


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_grid_is_that_of_the_released_code(golden):
    case = golden["erq.weight_w4"]
    weight = chirp((20, 24), 0.37, 0.2, 0.5) + 0.02
    values = GridWeights(weight, 4)(weight)
    assert values.double().sum().item() == pytest.approx(case["sum"], rel=1e-5)
    assert values.double().abs().sum().item() == pytest.approx(case["abs_sum"], rel=1e-5)
    assert values.flatten()[:8].tolist() == pytest.approx(case["first8"], rel=1e-5, abs=1e-6)


def test_of_the_candidates_the_one_of_least_squared_error_is_taken():
    rows = seeded(3, 500)
    found = least_squares_quantiles(rows, 3)
    for row, scale in zip(rows, found.scale, strict=True):
        errors = {}
        for upper in UPPER_QUANTILES:
            low, high = (torch.quantile(row, share) for share in (1 - upper, upper))
            step = (high - low) / 7
            zero = (-low / step).round()
            codes = ((row / step).round() + zero).clamp(0, 7)
            errors[(codes - zero).mul(step).sub(row).square().mean().item()] = step.item()
        assert scale.item() == pytest.approx(errors[min(errors)], rel=1e-5)


@pytest.mark.parametrize("dual", [False, True])
def test_weights_on_their_grid_stay_as_they_are_and_the_state_alone_restores_it(dual):
    weight = seeded(40, 30)
    grid = GridWeights(weight, 3, dual=dual)
    once = grid(weight)
    assert torch.equal(grid(once), once)
    other = GridWeights(seeded(40, 30, seed=1), 3, dual=dual)
    other.load_state_dict(grid.state_dict())
    assert torch.equal(other(weight), once)


def test_outlying_columns_have_a_grid_of_their_own():
    weight = seeded(40, 100)
    weight[:, [3, 50]] *= 30.0
    assert outlying_columns(weight, 2).nonzero().flatten().tolist() == [3, 50]
    one, two = (GridWeights(weight, 4, dual=dual) for dual in (False, True))
    assert two.grid_of_column.nonzero().flatten().tolist() == [3, 50]
    errors = [(grid(weight) - weight).square().mean() for grid in (one, two)]
    assert errors[1] < 0.1 * errors[0]
    for row in two(weight):
        for columns in (two.grid_of_column == 0, two.grid_of_column == 1):
            assert len(row[columns].unique()) <= 16


@pytest.mark.parametrize("weight", [torch.zeros(20, 6), torch.full((20, 6), -0.3)])
def test_constant_rows_stay_as_they_are(weight):
    torch.testing.assert_close(GridWeights(weight, 4, dual=True)(weight), weight)


def test_weights_pass_inside_the_block_alone():
    weight = seeded(4, 3)
    model = nn.Sequential(GridWeights(weight, 2))
    with passing_weights(model):
        assert torch.equal(model(weight), weight)
    assert not torch.equal(model(weight), weight)
