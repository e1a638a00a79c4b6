"""The learned-step-size activation quantizer of MaskAQ and MimiQ: one scale and one zero point per tensor.

Source: the authors' released code; LSQ (Esser et al., ICLR 2020) for the scale's gradient. Where a quantizer
starts from the first tensor that it sees:

                 released                               least squares
    scale        2 * mean|x| / sqrt(highest)            least squared error over shrunk ranges (LSQ+)
    zero point   0.1 * (min(x) - scale * highest)       lowest - low / scale

The released zero point adds a real value to a count of levels. Correcting that alone, with the released
scale, makes things worse: the window then starts at the smallest value and ends before the large ones.
`methods.quantization.range_search` replaces the second start by a better one.

In both the scale has a floor of 1e-8, which the released code lacks: it divides by zero on zeros.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from methods.quantization.activations import UniformQuantizer
from methods.quantization.fake_quantize import (
    SMALLEST_SCALE,
    Grid,
    fake_quantize,
    signed_grid,
    unsigned_grid,
)


class LsqQuantizer(UniformQuantizer):
    """Learns its scale and zero point by gradient; the first tensor it sees sets where they start.

    One that is closed before it saw any value passes values through: what a detector is evaluated on must
    not set the ranges of layers that no region reached in training.
    """

    signed: Tensor
    """Scalar bool: whether the levels are -2^(b-1) ... 2^(b-1) - 1 rather than 0 ... 2^b - 1."""
    gradient_factor: Tensor
    """Factor on the scale's gradient: g / sqrt(numel * highest level), numel of the first tensor."""

    def __init__(
        self, bits: int, *, released_start: bool = False, g_scale: float = 1.0, unsigned: bool = False
    ) -> None:
        """`g_scale` is g of the gradient factor; `unsigned` tells that the levels are, whatever comes.

        Without it they are unsigned where the first tensor has no value below 1e-5, as in the released code.
        """
        super().__init__()
        self.bits = bits
        self.released_start = released_start
        self.g_scale = g_scale
        self.unsigned = unsigned
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.zero_point = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("signed", torch.tensor(True))
        self.register_buffer("gradient_factor", torch.tensor(1.0))
        self._grid = signed_grid(bits)
        self._is_closed = False

    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize `x` of any shape; the first call sets the range."""
        if not self._is_ready:
            if self._is_closed or x.numel() == 0:
                return x
            self.start_from(x.detach())
        if self.is_frozen:
            return self._quantize_constant(x)
        return fake_quantize(
            x, self.scale, self.zero_point, self._grid, scale_gradient_factor=self.gradient_factor
        )

    @torch.no_grad()
    def start_from(self, x: Tensor) -> None:
        """Set levels, scale, zero point and gradient factor from a first tensor; waits for the device."""
        self.choose_levels(x)
        if self.released_start:
            scale = 2 * x.abs().mean() / math.sqrt(self._grid.highest)
            zero_point = 0.1 * (x.min() - scale * self._grid.highest)
        else:
            scale, zero_point = least_squares_range(x, self._grid)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    @torch.no_grad()
    def start_between(self, low: Tensor, high: Tensor) -> None:
        """Set scale and zero point from a range; its levels must have been chosen."""
        scale, zero_point = parameters_of(low, high, self._grid)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    @torch.no_grad()
    def choose_levels(self, x: Tensor) -> Grid:
        """Set levels and gradient factor from a batch, and hand on the levels; scale and zero point stay."""
        self.signed.fill_(not self.unsigned and bool(x.min() < 1e-5))
        self.ready.fill_(True)
        self.mirror()
        self.gradient_factor.fill_(self.g_scale / math.sqrt(x.numel() * self._grid.highest))
        return self._grid

    def close(self) -> None:
        """From now on no tensor sets the range; a loaded state closes too."""
        self._is_closed = True

    def mirror(self) -> None:
        """Read the flags into Python."""
        super().mirror()
        self._is_closed = True
        self._grid = signed_grid(self.bits) if self.signed else unsigned_grid(self.bits)

    def parameters_now(self) -> tuple[Tensor, Tensor, Grid]:
        """Scale, zero point and levels."""
        return self.scale, self.zero_point, self._grid

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"bits={self.bits}, LSQ, start {'released' if self.released_start else 'by error'}"


def close_ranges(model: nn.Module) -> None:
    """No quantizer of `model` takes its range from what it sees any more."""
    for module in model.modules():
        if isinstance(module, LsqQuantizer):
            module.close()


def least_squares_range(x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero point of the range whose levels have the least squared distance to `x`.

    The candidates are 100, 95, ... 5 % of [min(x), max(x)], both ends taken to zero where they have not
    reached it. Least squared error is LSQ+'s start (Bhalgat et al., 2020); the search is ours.
    """
    low, high = x.min().clamp(max=0.0), x.max().clamp(min=0.0)
    fractions = torch.linspace(1.0, 0.05, 20, device=x.device)
    scales, zero_points = parameters_of(low * fractions, high * fractions, grid)
    errors = [
        (fake_quantize(x, s, z, grid) - x).square_().mean() for s, z in zip(scales, zero_points, strict=True)
    ]
    best = torch.stack(errors).argmin()
    return scales[best], zero_points[best]


def parameters_of(low: Tensor, high: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and real zero point that map [low, high], of any one shape, to the ends of the grid."""
    scale = ((high - low) / (grid.highest - grid.lowest)).clamp(min=SMALLEST_SCALE)
    return scale, grid.lowest - low / scale
