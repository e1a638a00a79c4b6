"""Turns an explicit backbone into one with quantizers in it: layers replaced, quantizers hung on outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from backbones.base import Backbone
from backbones.families.explicit import attention_modules


def quantizable_copy(teacher: Backbone) -> nn.Module:
    """A copy of the teacher's model in which no fused kernel hides the tensors of attention."""
    model = copy.deepcopy(teacher.model)
    for attention in attention_modules(model):
        attention.quantized = True
    return model


def replace_modules(model: nn.Module, replacement: Callable[[str, nn.Module], nn.Module | None]) -> list[str]:
    """Put `replacement(name, module)` in the place of every module for which it is not None; their names."""
    replaced = []
    for name, module in list(model.named_modules()):
        new = replacement(name, module)
        if new is not None:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, new)
            replaced.append(name)
    return replaced


def quantize_output(model: nn.Module, name: str, quantizer: nn.Module) -> None:
    """Hang a quantizer on the output of the named module, as its submodule `output_quantizer`."""
    module = model.get_submodule(name)
    module.add_module("output_quantizer", quantizer)
    module.register_forward_hook(_quantize_output)


def quantize_input(model: nn.Module, quantizer: nn.Module) -> None:
    """Hang a quantizer on the model's input, as its submodule `input_quantizer`."""
    model.add_module("input_quantizer", quantizer)
    model.register_forward_pre_hook(_quantize_input)


# The hooks find the quantizer through the module they are called with, so a deep copy calls its own.
def _quantize_output(module: Any, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    quantized: Tensor = module.output_quantizer(output)
    return quantized


def _quantize_input(module: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (module.input_quantizer(arguments[0]), *arguments[1:])
