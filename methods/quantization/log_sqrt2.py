"""RepQ-ViT's quantizer of softmax outputs: levels scale * sqrt(2)^-n, n = 0 ... 2^b - 1, and zero.

Source: Li et al., ICCV 2023 (arXiv 2212.08254), released code. Its two-part form, a shift by ceil(n / 2)
and a factor 1 + (sqrt(2) - 1) (n mod 2), is the same number: sqrt(2)^-n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.quantization.fake_quantize import SMALLEST_SCALE, straight_through
from methods.quantization.fitting import FittedQuantizer
from methods.quantization.percentile import tail_quantiles


class LogSqrt2Quantizer(FittedQuantizer):
    """One scale for a tensor of values in [0, 1]: the upper percentile of least squared error."""

    def fit(self, x: Tensor) -> None:
        """Search the scale."""
        _, candidates = tail_quantiles(x.reshape(1, -1))
        scales = candidates[:, 0].clamp(min=SMALLEST_SCALE)
        errors = torch.stack([quantize_log_sqrt2(x, s, self.bits).sub_(x).square_().mean() for s in scales])
        self.scale = scales[errors.argmin()].masked_fill(~errors.isfinite().all(), torch.nan)

    def quantize(self, x: Tensor) -> Tensor:
        """`x` on the levels, dequantized."""
        return quantize_log_sqrt2(x, self.scale, self.bits)

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"bits={self.bits}, log sqrt(2)"


def quantize_log_sqrt2(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    """`x` >= 0 with n = round(-2 log2(x / scale)), below 0 taken as 0 and above 2^bits - 1 as the value 0.

    Gradients are straight-through: 1 up to the scale, 0 above it.
    """
    with torch.no_grad():
        n = torch.div(x, scale).log2_().mul_(-2).round_().clamp_(min=0)
        y = n.masked_fill_(n >= 2**bits, torch.inf).mul_(-0.5).exp2_().mul_(scale)
    return straight_through(x, y, torch.zeros_like(scale), scale)
