"""Activation quantizers: what all have in common, and the min-max quantizer with its observer."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from methods.quantization.fake_quantize import (
    Constants,
    Grid,
    asymmetric_parameters,
    fake_quantize_constant,
    unsigned_grid,
)
from methods.quantization.freezing import Freezable


class ActivationQuantizer(Freezable, nn.Module):
    """Quantizes and dequantizes a tensor, once its range has been set.

    The flag `ready` lives twice: as a buffer, so that `state_dict` carries it, and as a Python bool, so that
    a forward does not wait for the device. Loading a state brings the second in line with the first.
    """

    ready: Tensor
    """Scalar bool: whether the range has been set."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ready", torch.tensor(False))
        self._is_ready = False
        register: Callable[..., object] = self.register_load_state_dict_post_hook  # untyped in PyTorch
        register(_mirror_after_loading)

    @property
    def is_ready(self) -> bool:
        """Whether the range has been set."""
        return self._is_ready

    def mirror(self) -> None:
        """Read the buffers that have a Python copy; waits for the device."""
        self._is_ready = bool(self.ready)


class UniformQuantizer(ActivationQuantizer, ABC):
    """Equal steps: one scale and one zero point for a whole tensor."""

    def __init__(self) -> None:
        super().__init__()
        self._constants: Constants | None = None

    @abstractmethod
    def parameters_now(self) -> tuple[Tensor, Tensor, Grid]:
        """Scale, zero point and levels."""

    def mirror(self) -> None:
        """Read the buffers that have a Python copy; waits for the device."""
        super().mirror()
        self._constants = None

    def thaw(self) -> None:
        """Follow the parameters again."""
        super().thaw()
        self._constants = None

    def _apply(self, fn: Any, recurse: bool = True) -> UniformQuantizer:
        self._constants = None  # they would stay on the old device
        apply: Callable[..., object] = super()._apply  # untyped in PyTorch; it returns the module itself
        apply(fn, recurse)
        return self

    def _quantize_constant(self, x: Tensor) -> Tensor:
        if self._constants is None:
            self._constants = Constants.read(*self.parameters_now())
        return fake_quantize_constant(x, self._constants)


class MinMaxQuantizer(UniformQuantizer):
    """Asymmetric min-max quantizer that watches calibration batches (PSAQ-ViT code, `QuantAct`).

    Values pass through unchanged while it observes, and until it has observed something.
    """

    low: Tensor
    """Lowest value seen."""
    high: Tensor
    """Highest value seen."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.observing = False
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize `x` of any shape, or watch it."""
        if self.observing:
            self.observe(x)
            return x
        return self._quantize_constant(x) if self._is_ready else x

    def observe(self, x: Tensor) -> None:
        """Widen the range to hold every value of `x`; non-finite values end up in it."""
        low, high = torch.aminmax(x.detach())
        if self._is_ready:
            low, high = torch.minimum(low, self.low), torch.maximum(high, self.high)
        self.low.copy_(low)
        self.high.copy_(high)
        self.ready.fill_(True)
        self._is_ready = True
        self._constants = None

    def forget(self) -> None:
        """Start anew: the next observed tensor alone sets the range."""
        self.ready.fill_(False)
        self.mirror()

    def parameters_now(self) -> tuple[Tensor, Tensor, Grid]:
        """Scale, zero point and levels of the observed range."""
        return *asymmetric_parameters(self.low, self.high, self.bits), unsigned_grid(self.bits)

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"bits={self.bits}, min-max"


@contextlib.contextmanager
def observing(model: nn.Module) -> Iterator[None]:
    """All min-max quantizers of `model` forget their ranges, then watch what passes through."""
    quantizers = [m for m in model.modules() if isinstance(m, MinMaxQuantizer)]
    for quantizer in quantizers:
        quantizer.forget()
        quantizer.observing = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.observing = False


def _mirror_after_loading(module: Any, incompatible_keys: Any) -> None:
    module.mirror()
