"""Quantizers, quantized layers, conversion of models; `frozen` makes a student cheap for synthesis."""

from methods.quantization.freezing import frozen

__all__ = ["frozen"]
