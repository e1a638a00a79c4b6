"""RepQ-ViT's uniform quantizer: the range between two percentiles that has the least squared error.

Source: Li et al., ICCV 2023 (arXiv 2212.08254), released code. A tensor is cut to the range between its
quantiles 1 - p and p for p = 0.999, 0.9999 and 0.99999; the best of the three stays. With b bits
scale = (high - low) / (2^b - 1), zero point = round(-low / scale), and
x -> (clamp(round(x / scale) + zero point, 0, 2^b - 1) - zero point) * scale.

Two things the released code lacks: scales have a floor, and a range that is narrow for its distance from
zero (a constant channel, as LayerNorm weights of 0 make them) is widened to zero. Its zero point would
otherwise be a huge number that swamps the mean over channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from methods.quantization.fake_quantize import SMALLEST_SCALE, straight_through
from methods.quantization.fitting import FittedQuantizer

TAILS = (1e-3, 1e-4, 1e-5)
"""Share of the values beyond each end of a candidate range."""

_NARROWEST = 1e-3
"""Width of a range over its distance from zero below which zero is taken in."""


class UniformParameters(NamedTuple):
    """Scales and integer zero points, of the same shape."""

    scale: Tensor
    zero_point: Tensor


def tail_quantiles(x: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper quantiles (len(TAILS), groups) of every row of `x` (groups, n), exactly.

    Linear interpolation as in `torch.quantile`, which sorts everything and in many versions refuses more
    than 16 million values; only the tails are sorted here.
    """
    n = x.shape[1]
    positions = [tail * (n - 1) for tail in TAILS]
    count = min(n, int(max(positions)) + 2)
    ends = []
    for largest in (False, True):
        ordered = x.topk(count, dim=1, largest=largest).values
        ends.append(
            torch.stack(
                [
                    torch.lerp(ordered[:, int(p)], ordered[:, min(int(p) + 1, n - 1)], p - int(p))
                    for p in positions
                ]
            )
        )
    return ends[0], ends[1]


def least_squares_percentile(x: Tensor, bits: int) -> UniformParameters:
    """The best candidate of every row of `x` (groups, n); each result is (groups,).

    The scale is NaN where a row holds values that are not finite.
    """
    low, high = tail_quantiles(x)
    narrow = high - low <= _NARROWEST * torch.maximum(low.abs(), high.abs())
    low = torch.where(narrow, low.clamp(max=0.0), low)
    high = torch.where(narrow, high.clamp(min=0.0), high)
    scales, zero_points = uniform_parameters(low, high, bits)
    errors = torch.stack(
        [
            quantize_uniform(x, scale[:, None], zero_point[:, None], bits).sub_(x).square_().mean(dim=1)
            for scale, zero_point in zip(scales, zero_points, strict=True)
        ]
    )
    best = errors.argmin(dim=0, keepdim=True)
    scale = scales.gather(0, best)[0].masked_fill(~errors.isfinite().all(dim=0), torch.nan)
    return UniformParameters(scale, zero_points.gather(0, best)[0])


def uniform_parameters(low: Tensor, high: Tensor, bits: int) -> UniformParameters:
    """2^bits equal steps from `low` to `high`, of any one shape; the scale is at least 1e-8."""
    scale = ((high - low) / (2**bits - 1)).clamp(min=SMALLEST_SCALE)
    return UniformParameters(scale, (-low / scale).round())


def quantize_uniform(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """`x` on 2^bits equal steps, dequantized, with straight-through gradients; the parameters broadcast.

    Rounding comes before the zero point is added, which matters where that is not an integer.
    """
    low, high = -zero_point, 2**bits - 1 - zero_point
    with torch.no_grad():
        y = torch.div(x, scale).round_().clamp_(low, high).mul_(scale)
    return straight_through(x, y, low * scale, high * scale)


class PercentileQuantizer(FittedQuantizer):
    """Activation quantizer with one range for the tensor or, `per_channel`, one for every last index.

    Per-channel ranges live between calibration and `reparameterization`, which makes them one.
    """

    zero_point: Tensor
    """Scalar, or (C,) like the scale while ranges are per channel."""

    def __init__(self, bits: int, *, per_channel: bool = False) -> None:
        super().__init__(bits)
        self.per_channel = per_channel
        self.register_buffer("zero_point", torch.tensor(0.0))

    def fit(self, x: Tensor) -> None:
        """Search the ranges of `x` (..., C)."""
        if self.per_channel:
            self.scale, self.zero_point = least_squares_percentile(x.flatten(0, -2).T.contiguous(), self.bits)
        else:
            scale, zero_point = least_squares_percentile(x.reshape(1, -1), self.bits)
            self.use_one_range(scale[0], zero_point[0])

    def use_one_range(self, scale: Tensor, zero_point: Tensor) -> None:
        """Take a scalar scale and zero point for the whole tensor."""
        self.scale, self.zero_point = scale, zero_point
        self.per_channel = False

    def quantize(self, x: Tensor) -> Tensor:
        """`x` on the levels, dequantized."""
        return quantize_uniform(x, self.scale, self.zero_point, self.bits)

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"bits={self.bits}, percentile"


class PercentileWeights(nn.Module):
    """Weight quantizer with a range per output channel, fixed once it is fitted."""

    scale: Tensor
    """(out, 1, ...)."""
    zero_point: Tensor
    """(out, 1, ...)."""

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("scale", None)
        self.register_buffer("zero_point", None)
        self.fit(weight)

    def fit(self, weight: Tensor) -> None:
        """Search the ranges of a weight (out, ...)."""
        parameters = least_squares_percentile(weight.detach().flatten(1), self.bits)
        per_channel = (-1, *[1] * (weight.dim() - 1))
        self.scale, self.zero_point = (p.view(per_channel) for p in parameters)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight on its levels, dequantized, with straight-through gradients."""
        return quantize_uniform(weight, self.scale, self.zero_point, self.bits)
