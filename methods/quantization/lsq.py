"""The learned-step-size activation quantizer of MaskAQ and MimiQ: one scale and one zero point per tensor.

Source: the authors' released code; LSQ (Esser et al., ICLR 2020) for the scale's gradient. Two modes differ
in where a quantizer starts:

                 faithful (as released)                    fixed
    scale        2 * mean|x| / sqrt(highest)               least squared error over shrunk ranges (LSQ+)
    zero point   0.1 * (min(x) - scale * highest)          lowest - low / scale
    softmax      signed when a probability is below 1e-5   unsigned

The released zero point adds a real value to a count of levels. Correcting that alone, with the released
scale, makes things worse: the window then starts at the smallest value and ends before the large ones. DeiT-T
calibrated on 16 real images, top-1 of 250 images, 83.2 in full precision: W4A4 14.0 faithful, 3.2 with
the corrected zero point alone, 2.4 plain min-max, 19.6 least squared error; W8A8 71.2, 77.2, 83.2 and 82.0.

In both modes the scale has a floor of 1e-8, which the released code lacks: it divides by zero on zeros.
"""

from __future__ import annotations

import math
from typing import Literal

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

Mode = Literal["fixed", "faithful"]


class LsqQuantizer(UniformQuantizer):
    """Learns its scale and zero point by gradient; the first tensor it sees sets where they start.

    One that is closed before it saw any value passes values through: what a detector is evaluated on must
    not set the ranges of layers that no region reached in training.
    """

    signed: Tensor
    """Scalar bool: whether the levels are -2^(b-1) ... 2^(b-1) - 1 rather than 0 ... 2^b - 1."""
    gradient_factor: Tensor
    """Factor on the scale's gradient: g / sqrt(numel * highest level), numel of the first tensor."""

    def __init__(self, bits: int, *, mode: Mode, g_scale: float = 1.0, softmax: bool = False) -> None:
        """`g_scale` is g of the gradient factor; `softmax` tells that inputs are probabilities."""
        super().__init__()
        self.bits = bits
        self.mode = mode
        self.g_scale = g_scale
        self.softmax = softmax
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.zero_point = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("signed", torch.tensor(True))
        self.register_buffer("gradient_factor", torch.tensor(1.0))
        self._grid = signed_grid(bits)
        self._is_closed = False

    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize `x` of any shape; the first call sets the range."""
        if not self._is_ready:
            if self._is_closed:
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
        unsigned = self.mode == "fixed" and self.softmax
        self.signed.fill_(not unsigned and bool(x.min() < 1e-5))
        self.ready.fill_(True)
        self.mirror()
        if self.mode == "faithful":
            scale = 2 * x.abs().mean() / math.sqrt(self._grid.highest)
            zero_point = 0.1 * (x.min() - scale * self._grid.highest)
        else:
            scale, zero_point = least_squares_range(x, self._grid)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
        self.gradient_factor.fill_(self.g_scale / math.sqrt(x.numel() * self._grid.highest))

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
        return f"bits={self.bits}, LSQ {self.mode}"


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
    scales = ((high - low) * fractions / (grid.highest - grid.lowest)).clamp(min=SMALLEST_SCALE)
    zero_points = grid.lowest - low * fractions / scales
    errors = [
        (fake_quantize(x, s, z, grid) - x).square_().mean() for s, z in zip(scales, zero_points, strict=True)
    ]
    best = torch.stack(errors).argmin()
    return scales[best], zero_points[best]
