"""QwT's compensation: beside each block a linear layer that predicts the block's quantization error.

Source: wujx2001/QwT (CVPR 2025; arXiv 2411.13918), released code. A block then gives block(x) + W x + b, with
W in half precision, found in closed form from the block's inputs and errors over all tokens. Blocks are
fitted front to back: each sees what the quantized and compensated ones before it give, and its error is
against the full-precision block on the same input. What earlier blocks left is not corrected.

A student with it is larger: C^2 values of 2 bytes and C of 4 for each block of width C.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.quantization.error_reduction import Moments

_NAME = "compensation"
_LARGEST_HALF = 65504.0
_RIDGE = 0.01
_TOKENS_PER_UNKNOWN = 64
"""With fewer tokens for each input and bias than this, the regression gets a ridge."""


class Compensation(nn.Module):
    """A linear layer that starts as zero; its weights are kept in half precision."""

    weight: Tensor
    """(out, in), float16."""
    bias: Tensor
    """(out,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(width, width, dtype=torch.float16))
        self.register_buffer("bias", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out): the product of values in half precision, summed in float32."""
        halved = x.clamp(-_LARGEST_HALF, _LARGEST_HALF).half().to(x.dtype)
        return F.linear(halved, self.weight.to(x.dtype), self.bias)


class Regression(NamedTuple):
    """The affine map that is nearest to the errors, in float64."""

    weight: Tensor
    """(in, out)."""
    bias: Tensor
    """(out,)."""
    explained: float
    """r2: the share of the errors' variance that it explains, on the tokens that it is fitted to."""


def regress(moments: Moments, sum_of_squares: Tensor, ridge: float) -> Regression:
    """Least squares of errors on inputs from their moments and the errors' sum of squares.

    `ridge` times the mean variance of the inputs is added to each variance.
    """
    n, gram, cross = moments.tokens, moments.gram, moments.cross
    mean_x, mean_y = gram[-1, :-1] / n, cross[-1] / n
    centred = gram[:-1, :-1] - n * torch.outer(mean_x, mean_x)
    covariance = cross[:-1] - n * torch.outer(mean_x, mean_y)
    damped = centred + ridge * centred.diagonal().mean() * torch.eye(len(centred)).to(centred)
    # The pseudo-inverse, since a channel that is constant makes the matrix singular.
    weight = torch.linalg.pinv(damped, hermitian=True) @ covariance
    total = sum_of_squares - n * mean_y.square().sum()
    left = total - 2 * (weight * covariance).sum() + (weight * (centred @ weight)).sum()
    return Regression(weight, mean_y - mean_x @ weight, float(1 - left / total))


def add_compensation(model: nn.Module) -> None:
    """Give every block of an explicit model a compensation of zero, as its submodule `compensation`."""
    for block in compensated_blocks(model).values():
        width: int = block.get_submodule("norm1").normalized_shape[0]  # type: ignore[assignment,index]
        block.add_module(_NAME, Compensation(width))
        block.register_forward_hook(_compensate)


def compensated_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Name -> block, in forward order."""
    from backbones.families.explicit import ExplicitBlock, ExplicitSwinBlock

    return {n: m for n, m in model.named_modules() if isinstance(m, ExplicitBlock | ExplicitSwinBlock)}


@torch.no_grad()
def fit_compensation(
    student: nn.Module,
    exact: nn.Module,
    images: Tensor,
    *,
    with_ridge: bool,
    on_block: Callable[[int, int, float], None],
) -> None:
    """Fit the compensation of every block of `student`, front to back, in one pass of the images.

    `exact` is the full-precision model. `on_block` gets how many blocks are fitted, of how many, and the
    share of the errors' variance that the last one explains.
    """
    blocks = compensated_blocks(student)
    done = 0

    def fit(name: str, block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        nonlocal done
        x = inputs[0]
        error = exact.get_submodule(name)(*inputs) - output
        moments = Moments.of(x, error)
        few = moments.tokens < _TOKENS_PER_UNKNOWN * len(moments.gram)
        found = regress(moments, error.double().square().sum(), _RIDGE if with_ridge and few else 0.0)
        compensation = block.get_submodule(_NAME)
        assert isinstance(compensation, Compensation)
        if found.explained > 0:
            compensation.weight.copy_(found.weight.T.clamp(-_LARGEST_HALF, _LARGEST_HALF))
            compensation.bias.copy_(found.bias)
        done += 1
        on_block(done, len(blocks), found.explained)
        compensated: Tensor = output + compensation(x)
        return compensated

    handles = [block.register_forward_hook(functools.partial(fit, name)) for name, block in blocks.items()]
    try:
        student(images)
    finally:
        for handle in handles:
            handle.remove()


def compensation_bytes(state: Mapping[str, Tensor]) -> int:
    """What compensation takes of a student's state; 0 where there is none."""
    return sum(
        value.numel() * value.element_size() for name, value in state.items() if f".{_NAME}." in f".{name}"
    )


# The hook finds its layer through the module it is called with, so a deep copy calls its own.
def _compensate(block: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    compensated: Tensor = output + block.compensation(inputs[0])
    return compensated
