"""Makes a quantized model constant for a while, so that images can be optimised through it cheaply."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


class Freezable:
    """A module that can compute once what it otherwise derives from its parameters in every forward."""

    is_frozen: bool = False

    def freeze(self) -> None:
        """Take the parameters as constant from now on; values are read at the next forward."""
        self.is_frozen = True

    def thaw(self) -> None:
        """Follow the parameters again."""
        self.is_frozen = False


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Take the weights and quantizers of `model` as constant; gradients flow to its input alone.

    with frozen(student):
        loss(student(images)).backward()  # images.grad is set, no parameter's is

    Quantized weights are computed once, scales are read once, parameters need no gradient. The parameters
    must not change inside the block. Quantizers that take their range from their first input still do. The
    blocks may be nested.
    """
    freezable = [m for m in model.modules() if isinstance(m, Freezable) and not m.is_frozen]
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        for module in freezable:
            module.freeze()
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for module in freezable:
            module.thaw()
        for parameter in trainable:
            parameter.requires_grad_(True)
