"""How much of a GPU's memory a stage is estimated to need, and the part of a GPU that follows.

An estimate, meant to be too high: a process takes a fixed part; weights count for teacher, student, gradient
and momentum; every output of a layer is kept for each image of a batch, several times where gradients flow.
Nothing is loaded: parameters and outputs are counted on a model without values.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

from backbones import SPECS
from backbones.loading import build_model
from harness.stages.base import RunContext, Stage

_GIB = 2**30
_PROCESS_BYTES = _GIB
"""What CUDA and its libraries take of a GPU for each process."""
_FLOAT_BYTES = 4
_WEIGHT_COPIES = 4
_WITH_GRADIENTS, _FORWARD_ONLY = 4.0, 1.0
"""How often a layer's output is kept: as it is, quantized, as attention maps, and as a gradient."""
_MARGIN = 1.5
_FORWARD_KINDS = ("evaluate", "agree")
_BATCHES = ("batch_size", "calibration_images", "search_images")
"""Settings that say how many images go through the model together."""
_MOST_ON_ONE = 8
"""Stages on one GPU at most: more take turns without gain."""
GIB_OF_KIND = {
    "T4": 15, "V100": 16, "A10G": 22, "L4": 22, "A100": 39, "A100-40G": 39, "A100-80G": 79, "L40S": 44,
    "H100": 79, "H200": 139, "H20": 95, "B200": 178,
}  # fmt: skip
"""Kind of GPU, as Ray names it -> GiB of the smallest card of that name."""


class _Size(NamedTuple):
    parameters: int
    outputs: int
    """Numbers in the outputs of all layers, for one image."""


def part_of_gpu(stage: Stage, context: RunContext, kinds: Iterable[str]) -> float:
    """The part of a GPU that the stage holds: 1/n for n of its like on a GPU of the smallest kind.

    A whole one where the kind's memory or the model's size is not known, as that of a detector with regions.
    """
    sizes = [GIB_OF_KIND.get(kind) for kind in kinds]
    needed = bytes_of(stage, context.batch_size)
    if not sizes or None in sizes or needed is None:
        return context.gpus_per_trial
    return packed(needed, min(size for size in sizes if size is not None) * _GIB)


def packed(needed: float, memory: float) -> float:
    """1/n of a GPU, rounded down to what Ray can tell apart, for the most stages n that fit on it."""
    count = max(1, min(_MOST_ON_ONE, int(memory / needed)))
    return int(10_000 / count) / 10_000


def bytes_of(stage: Stage, batch_size: int) -> float | None:
    """Estimated bytes on a GPU; `batch_size` is that of evaluations. None where the size is not known."""
    size = _size_of(stage.settings.get("backbone", ""))
    if size is None:
        return None
    forward = stage.kind in _FORWARD_KINDS
    images = batch_size if forward else max(batch_size, *_batches(stage.settings))
    kept = size.outputs * images * (_FORWARD_ONLY if forward else _WITH_GRADIENTS)
    return _PROCESS_BYTES + _MARGIN * _FLOAT_BYTES * (size.parameters * _WEIGHT_COPIES + kept)


def _batches(settings: Any) -> list[int]:
    """Images that go together, by any setting of the stage."""
    configs = (settings.get(name, {}) for name in ("config", "engine_config"))
    return [0, *(int(config.get(name, 0)) for config in configs for name in _BATCHES)]


@functools.cache
def _size_of(backbone: str) -> _Size | None:
    """Size of a backbone, by a run of its model without values; None where that cannot be."""
    import torch
    from torch import nn

    if backbone not in SPECS:
        return None
    outputs = 0

    def count(module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal outputs
        if isinstance(output, torch.Tensor) and not list(module.children()):
            outputs += output.numel()

    spec = SPECS[backbone]
    try:
        with torch.device("meta"), torch.no_grad():
            model: nn.Module = build_model(spec).eval()
            for module in model.modules():
                module.register_forward_hook(count)
            model(torch.zeros(1, *spec.data.input_size))
    except (NotImplementedError, RuntimeError):  # what depends on values, such as regions of interest
        return None
    return _Size(sum(parameter.numel() for parameter in model.parameters()), outputs)
