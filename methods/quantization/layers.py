"""Layers that quantize their weights and their inputs: linear, convolution and matrix product."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from methods.quantization.freezing import Freezable

WeightQuantizer = Callable[[Tensor], Tensor]
"""Weights (out, ...) -> the same shape, quantized per output channel and dequantized."""


class _QuantizedWeights(Freezable, nn.Module):
    """Weights and bias of a layer under their old names, so that the teacher's state loads unchanged."""

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        quantize_weight: WeightQuantizer,
        input_quantizer: nn.Module | None,
    ) -> None:
        super().__init__()
        self.weight = layer.weight
        self.bias = layer.bias
        self.quantize_weight = quantize_weight
        self.input_quantizer = nn.Identity() if input_quantizer is None else input_quantizer
        self._constant_weight: Tensor | None = None

    def quantized_weight(self) -> Tensor:
        """The weights as the layer uses them: derived anew in every call, once while frozen."""
        if not self.is_frozen:
            return self.quantize_weight(self.weight)
        if self._constant_weight is None:
            self._constant_weight = self.quantize_weight(self.weight.detach())
        return self._constant_weight

    def thaw(self) -> None:
        """Follow the weights again."""
        super().thaw()
        self._constant_weight = None


class QuantizedLinear(_QuantizedWeights):
    """A linear layer with quantized weights and, unless `input_quantizer` is None, quantized input."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(self.input_quantizer(x), self.quantized_weight(), self.bias)


class QuantizedConv2d(_QuantizedWeights):
    """A convolution with quantized weights and, unless `input_quantizer` is None, quantized input."""

    def __init__(
        self, layer: nn.Conv2d, quantize_weight: WeightQuantizer, input_quantizer: nn.Module | None
    ) -> None:
        super().__init__(layer, quantize_weight, input_quantizer)
        if layer.padding_mode != "zeros":
            raise ValueError(
                f"a convolution with padding mode '{layer.padding_mode}' cannot be quantized: use zeros"
            )
        self.stride, self.padding = layer.stride, layer.padding
        self.dilation, self.groups = layer.dilation, layer.groups

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H', W')."""
        return F.conv2d(
            self.input_quantizer(x),
            self.quantized_weight(),
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


class QuantizedMatMul(nn.Module):
    """`a @ b` with a quantizer for each factor."""

    def __init__(self, first_quantizer: nn.Module, second_quantizer: nn.Module) -> None:
        super().__init__()
        self.first_quantizer = first_quantizer
        self.second_quantizer = second_quantizer

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Quantize both, multiply the last two axes."""
        product: Tensor = self.first_quantizer(a) @ self.second_quantizer(b)
        return product
