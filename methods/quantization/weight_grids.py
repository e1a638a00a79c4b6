"""ERQ's weight grids: ten percentile ranges to choose from, and two grids a row where columns were scaled.

Source: zysxmu/ERQ (ICML 2024; arXiv 2407.06794), released code. A row of weights is cut to the range between
its quantiles 1 - p and p, of ten p the one of least squared error. Where the input's channels were made one
range by scaling the columns ("dual uniform"), the columns that are most often among a row's outermost
percents share one grid per row and the others another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from methods.quantization.percentile import (
    PercentileWeights,
    UniformParameters,
    quantize_uniform,
    uniform_parameters,
)

UPPER_QUANTILES = (0.97, 0.98, 0.99, 0.995, 0.9995, 0.9997, 0.9999, 0.99995, 0.99999, 1.0)
"""Candidates of the upper end of a range; the lower end is the quantile 1 - p."""

_OUTERMOST = 0.01
"""Share of a row's values at each end that count as outlying."""
_ROWS_PER_OUTLIER = 20
"""Output features for each column that gets the second grid."""
_NARROWEST = 1e-3
"""Width of a range over its distance from zero below which zero is taken in."""


class GridWeights(PercentileWeights):
    """Weight quantizer with one grid per output channel, or two; weights that lie on them stay."""

    scale: Tensor
    """(out, 1, ...), or (out, 2) for the two grids of a row."""
    zero_point: Tensor
    """As the scale."""
    grid_of_column: Tensor | None
    """(in,): 1 for the columns on the second grid; None where a row has one."""

    def __init__(self, weight: Tensor, bits: int, *, dual: bool = False) -> None:
        """`dual` gives the rows of a linear layer two grids, if it has 20 rows or more."""
        # The first fit, inside the base class, needs it.
        self.outliers = weight.shape[0] // _ROWS_PER_OUTLIER if dual else 0
        self.passing = False
        super().__init__(weight, bits)

    def fit(self, weight: Tensor) -> None:
        """Search the ranges of a weight (out, ...)."""
        rows = weight.detach().flatten(1)
        if self.outliers == 0:
            per_channel = (-1, *[1] * (weight.dim() - 1))
            found = least_squares_quantiles(rows, self.bits)
            self.scale, self.zero_point = (p.view(per_channel) for p in found)
            self.register_buffer("grid_of_column", None)
            return
        second = outlying_columns(rows, self.outliers)
        pairs = [least_squares_quantiles(rows[:, columns], self.bits) for columns in (~second, second)]
        self.scale, self.zero_point = (torch.stack(both, dim=1) for both in zip(*pairs, strict=True))
        self.register_buffer("grid_of_column", second.long())

    def parameters_of_entries(self) -> UniformParameters:
        """Scale and zero point, each of a shape that broadcasts to the weight's."""
        if self.grid_of_column is None:
            return UniformParameters(self.scale, self.zero_point)
        columns = self.grid_of_column
        return UniformParameters(self.scale[:, columns], self.zero_point[:, columns])

    def forward(self, weight: Tensor) -> Tensor:
        """The weight on its levels, dequantized, with straight-through gradients; unchanged while passing."""
        if self.passing:
            return weight
        return quantize_uniform(weight, *self.parameters_of_entries(), self.bits)


def least_squares_quantiles(rows: Tensor, bits: int) -> UniformParameters:
    """The candidate range of least squared error of every row (out, n); each result is (out,)."""
    ordered = rows.sort(dim=1).values
    low, high = (
        torch.stack([_quantile(ordered, share) for share in shares])
        for shares in ([1 - p for p in UPPER_QUANTILES], UPPER_QUANTILES)
    )
    narrow = high - low <= _NARROWEST * torch.maximum(low.abs(), high.abs())
    low = torch.where(narrow, low.clamp(max=0.0), low)
    high = torch.where(narrow, high.clamp(min=0.0), high)
    scales, zero_points = uniform_parameters(low, high, bits)
    errors = torch.stack(
        [
            (quantize_uniform(rows, scale[:, None], zero[:, None], bits) - rows).square().mean(dim=1)
            for scale, zero in zip(scales, zero_points, strict=True)
        ]
    )
    best = errors.argmin(dim=0, keepdim=True)
    return UniformParameters(scales.gather(0, best)[0], zero_points.gather(0, best)[0])


def outlying_columns(rows: Tensor, count: int) -> Tensor:
    """Marks (n,) the `count` columns of `rows` (out, n) that are outermost in most rows; the first of equals.

    Never more than half of them.
    """
    ordered = rows.sort(dim=1).values
    low, high = (_quantile(ordered, share)[:, None] for share in (_OUTERMOST, 1 - _OUTERMOST))
    times = ((rows < low) | (rows > high)).sum(dim=0)
    most = times.argsort(descending=True, stable=True)[: min(count, rows.shape[1] // 2)]
    marked = torch.zeros(rows.shape[1], dtype=torch.bool, device=rows.device)
    marked[most] = True
    return marked


@contextlib.contextmanager
def passing_weights(model: nn.Module) -> Iterator[None]:
    """The grids of `model` let weights through as they are."""
    grids = [module for module in model.modules() if isinstance(module, GridWeights)]
    for grid in grids:
        grid.passing = True
    try:
        yield
    finally:
        for grid in grids:
            grid.passing = False


def _quantile(ordered: Tensor, share: float) -> Tensor:
    """A quantile (rows,) of ascending rows (rows, n), with linear interpolation."""
    position = share * (ordered.shape[1] - 1)
    below = int(position)
    above = min(below + 1, ordered.shape[1] - 1)
    return torch.lerp(ordered[:, below], ordered[:, above], position - below)
