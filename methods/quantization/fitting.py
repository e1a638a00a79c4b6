"""Quantizers that take their range from the first tensor they see while a model is being fitted."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from methods.quantization.activations import ActivationQuantizer


class FittedQuantizer(ActivationQuantizer, ABC):
    """Passes values through until it is fitted; from then on its scale does not change.

    Where nothing comes by, as in the mask head of a detector that finds nothing, it goes on doing so.

    The tensor that sets the range leaves quantized, so whatever comes behind is fitted to distorted inputs.
    """

    scale: Tensor
    """Scalar; NaN where the fitted tensor held values that are not finite."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.fitting = False
        self.register_buffer("scale", torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize `x` of any shape."""
        if self.fitting and not self._is_ready:
            self.fit(x.detach())
            self.ready.fill_(True)
            self.mirror()
        return self.quantize(x) if self._is_ready else x

    @abstractmethod
    def fit(self, x: Tensor) -> None:
        """Set the range from `x`."""

    @abstractmethod
    def quantize(self, x: Tensor) -> Tensor:
        """`x` on the levels, dequantized, with straight-through gradients."""


def fitted_quantizers(model: nn.Module) -> dict[str, FittedQuantizer]:
    """Name -> quantizer, in order of registration."""
    return {name: m for name, m in model.named_modules() if isinstance(m, FittedQuantizer)}


@contextlib.contextmanager
def fitting(model: nn.Module) -> Iterator[None]:
    """Quantizers of `model` that have no range yet take it from the first tensor they see."""
    quantizers = fitted_quantizers(model).values()
    for quantizer in quantizers:
        quantizer.fitting = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.fitting = False
