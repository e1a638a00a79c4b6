"""Searches where learned activation ranges start: by the error that each leaves behind its layer.

Ours, not the released code's (`docs/design/range-start-of-lsq.md`). A range is judged by what the layer makes
of the quantized tensor, not by the tensor: few values far out cost steps that most others need, and what the
weights ignore costs nothing. Behind a linear layer the error of each token counts relative to that token's
output, since whoever reads it norms each token first; so a few massive tokens do not decide for all.

Candidates cut the ends of [min, max], which holds zero, at shares of their distance from zero: first both
ends together, with RepQ-ViT's percentiles beside them, then each by itself. A batch is searched from the
first layer to the last, so that what comes later sees its inputs as quantized as they will be; ends are
averaged over batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.quantization.fake_quantize import Grid, fake_quantize
from methods.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedMatMul
from methods.quantization.lsq import LsqQuantizer, parameters_of
from methods.quantization.percentile import tail_quantiles

SHARES = tuple(2 ** (-k / 2) for k in range(9))
"""Cuts as shares of an end's distance from zero: 1 to 1/16."""
_ROWS = 256
"""Rows of a linear layer's input on which candidates are compared, spread evenly over the batch."""
_ATTENTION_ROWS = 1024
"""Rows of a matrix product's first factor, spread evenly over a few of the batch's images."""
_ATTENTION_IMAGES = 4
_VALUES = 500_000
"""Values of a tensor that percentiles are taken of, and that a convolution's candidates are compared on."""

Quantized = Callable[[Tensor], Tensor]
"""A quantizer under one candidate range."""
ErrorOf = Callable[[Quantized], Tensor]
"""What one candidate range costs, a scalar."""


class Ends(NamedTuple):
    """A range in the units of the activation; scalars."""

    low: Tensor
    high: Tensor


def search_ranges(student: nn.Module, batches: Sequence[Tensor]) -> None:
    """Set the range of every LSQ quantizer of `student` that a batch (B, C, H, W) reaches.

    A quantizer that none reaches is left as it was.
    """
    found: dict[LsqQuantizer, list[Tensor]] = {}
    for batch in batches:
        with torch.no_grad(), _searching(student) as ends:
            student(batch)
        for quantizer, range_ in ends.items():
            found.setdefault(quantizer, []).append(
                torch.stack([*range_, torch.ones_like(range_.low)]) * len(batch)
            )
    for quantizer, weighed in found.items():
        low, high, images = torch.stack(weighed).sum(dim=0)
        quantizer.start_between(low / images, high / images)


def best_ends(x: Tensor, grid: Grid, error_of: ErrorOf) -> Ends:
    """The candidate for `x` that costs least; the first of equals, and min-max where costs are NaN."""
    whole = Ends(x.min().clamp(max=0.0), x.max().clamp(min=0.0))

    def best(candidates: list[Ends]) -> Ends:
        costs = torch.stack([error_of(_quantized_by(ends, grid)) for ends in candidates])
        return candidates[int(costs.nan_to_num(torch.inf).argmin())]

    shrunk = [Ends(share * whole.low, share * whole.high) for share in SHARES]
    chosen = best([*shrunk, *_percentiles(x)])
    chosen = best([chosen, *(Ends(chosen.low, share * whole.high) for share in SHARES)])
    return best([chosen, *(Ends(share * whole.low, chosen.high) for share in SHARES)])


@contextlib.contextmanager
def _searching(student: nn.Module) -> Iterator[dict[LsqQuantizer, Ends]]:
    """Every layer searches the ranges of its inputs at the first batch that passes; the ranges found."""
    found: dict[LsqQuantizer, Ends] = {}

    def search(quantizer: nn.Module, x: Tensor, error_of: ErrorOf) -> None:
        if isinstance(quantizer, LsqQuantizer) and quantizer not in found and x.numel() > 0:
            found[quantizer] = best_ends(x, quantizer.choose_levels(x), error_of)
            quantizer.start_between(*found[quantizer])

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(layer, QuantizedLinear):
            search(layer.input_quantizer, inputs[0], _behind_linear(layer, inputs[0]))
        elif isinstance(layer, QuantizedConv2d):
            search(layer.input_quantizer, inputs[0], _of_itself(inputs[0]))
        elif isinstance(layer, QuantizedMatMul):
            first, second = _thinned(*inputs)
            search(layer.first_quantizer, inputs[0], lambda q: ((q(first) - first) @ second).square().mean())
            if isinstance(layer.first_quantizer, LsqQuantizer) and layer.first_quantizer.is_ready:
                first = layer.first_quantizer(first)
            search(
                layer.second_quantizer, inputs[1], lambda q: (first @ (q(second) - second)).square().mean()
            )

    handles = [
        module.register_forward_pre_hook(before)
        for module in student.modules()
        if isinstance(module, QuantizedLinear | QuantizedConv2d | QuantizedMatMul)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _behind_linear(layer: QuantizedLinear, x: Tensor) -> ErrorOf:
    """The mean over tokens of the output's squared error, each relative to its output."""
    rows = _every(x.flatten(0, -2), _ROWS)
    weight = layer.quantized_weight()
    power = F.linear(rows, weight).square().mean(dim=-1).clamp(min=1e-12)

    def error(quantized: Quantized) -> Tensor:
        return (F.linear(quantized(rows) - rows, weight).square().mean(dim=-1) / power).mean()

    return error


def _of_itself(x: Tensor) -> ErrorOf:
    """The tensor's own squared error."""
    values = _every(x.flatten(), _VALUES)
    return lambda quantized: (quantized(values) - values).square().mean()


def _thinned(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Some images of both factors (B, H, n, k) and (B, H, k, m), with some rows of the first."""
    windows = max(_ATTENTION_IMAGES, _ATTENTION_ROWS // max(1, a[0].numel() // a.shape[-1]))
    a, b = _every(a, windows), _every(b, windows)
    rows = max(1, _ATTENTION_ROWS * a.shape[-2] * a.shape[-1] // max(1, a.numel()))
    return _every(a.transpose(0, -2), rows).transpose(0, -2), b


def _every(x: Tensor, count: int) -> Tensor:
    """At most `count` entries along the first axis, evenly spread."""
    if len(x) <= count:
        return x
    # In float32 the last of more than 16 million entries would be rounded past the end.
    return x[torch.linspace(0, len(x) - 1, count, dtype=torch.float64).long().to(x.device)]


def _percentiles(x: Tensor) -> list[Ends]:
    """The ends beyond which 0.1, 0.01 and 0.001 % of the values lie, zero within."""
    lows, highs = tail_quantiles(_every(x.flatten(), _VALUES)[None])
    return [
        Ends(low.clamp(max=0.0), high.clamp(min=0.0))
        for low, high in zip(lows[:, 0], highs[:, 0], strict=True)
    ]


def _quantized_by(ends: Ends, grid: Grid) -> Quantized:
    scale, zero_point = parameters_of(*ends, grid)
    return lambda x: fake_quantize(x, scale, zero_point, grid)
