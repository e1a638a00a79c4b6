"""Engine E5, the error reduction of ERQ: engine E3's activations, weights fitted to them in closed form.

Every linear layer's weights are first moved so that they make of quantized inputs what the full-precision
layer makes of exact ones (`methods.quantization.error_reduction`), then rounded half by half while the rest
takes up the error. No gradient and no learning rate. Weights are kept dequantized beside their grids, on
which they lie, so that quantizing them again changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from backbones.base import FAMILIES, Backbone
from methods.base import Evidence, Progress, TrainingFailed
from methods.bits import Bits
from methods.engines.repq_ptq import RepqPtq, RepqPtqConfig
from methods.settings import setting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from methods.quantization.error_reduction import Moments

_TOKENS = 6304
"""Tokens of 32 images of 197 each, on which the released ridge is meant."""
_IMAGES = 32
"""The same where a layer has one token per image, as a classifier's head."""
_POOLED_RIDGE = 0.1
"""Released ridge of the first step for such a layer."""
_PATCH_EMBEDDING = 10.0
"""Its ridge over that of the other layers."""
_WIDEST = 4096
"""Inputs of the widest layer that is fitted: the moments of a wider one take gigabytes."""
_BATCH = 8
"""Images whose moments are taken at a time."""


@dataclass
class _LayerMoments:
    """The moments of a layer, and whether it has one token per image."""

    moments: Moments
    pooled: bool


@dataclass(frozen=True)
class ErrorReductionConfig(RepqPtqConfig):
    """Ridge, rounding refinement and grids of ERQ; the rest is engine E3's."""

    ridge: float = setting(
        1000.0,
        "Added to the diagonal of the summed moments of 6304 tokens, in both steps.",
        low=1.0,
        high=1e5,
        log=True,
    )
    refinement_steps: int = setting(
        100, "Most changes of rounding per row and half; 0: nearest.", low=0, high=1000, smoke=0
    )
    dual_uniform: bool = setting(
        True, "Two grids a row behind a LayerNorm, as released.", choices=(True, False)
    )


class ErrorReduction(RepqPtq):
    """Calibrates as E3, then moves and rounds each linear layer's weights in closed form."""

    Config = ErrorReductionConfig
    config: ErrorReductionConfig
    families = FAMILIES
    title = "Error reduction (post-training, closed form)"
    citation = (
        "ERQ: Error Reduction for Post-Training Quantization of Vision Transformers, ICML 2024, "
        "arXiv 2407.06794"
    )
    sources: ClassVar[Mapping[str, Evidence]] = {
        **RepqPtq.sources,
        "weight grids, two per row behind a LayerNorm": "code",
        "weights fitted to quantized inputs, rounding by halves": "code",
        "ridge": "code",
        "ridge at another number of tokens": "ours",
    }
    deviations: ClassVar[tuple[str, ...]] = (
        *RepqPtq.deviations,
        "mode fixed (default) keeps E3's 8 bits of the input image; as released (mode faithful) it stays in "
        "full precision",
        "the input of Swin's patch merging is reparameterized as in E3; released, it has one range from the "
        "start",
        "mode fixed scales the ridge with the number of tokens; as released it is one number",
        "moments are summed in float64 over batches, and a change of rounding updates the gradient instead "
        "of computing it anew; both agree with the released functions to 6 digits",
        "layers with more than 4096 inputs (a detector's box head), convolutions other than the patch "
        "embedding, and layers that no value reaches are rounded to nearest",
    )
    not_established: ClassVar[tuple[str, ...]] = (
        *RepqPtq.not_established,
        "the ridge for each model and number of bits: 1000, as in the README's example",
        "published values at W3A3 and W6A6, of Swin-T and of detectors: none were read",
    )

    def prepare(self, teacher: Backbone, bits: Bits) -> nn.Module:
        """A copy with weights rounded to nearest; its activations pass through until they are calibrated."""
        from torch import nn

        from methods.quantization.layers import QuantizedConv2d, QuantizedLinear
        from methods.quantization.percentile import PercentileWeights
        from methods.quantization.reparameterization import normed_layers
        from methods.quantization.weight_grids import GridWeights

        student = super().prepare(teacher, bits)
        behind_norm = {pair.layer for pair in normed_layers(student)}
        for name, layer in student.named_modules():
            if not isinstance(layer, QuantizedLinear | QuantizedConv2d):
                continue
            if layer.bias is None and _is_fitted(name, layer):
                zeros = layer.weight.new_zeros(len(layer.weight))
                layer.bias = nn.Parameter(zeros, requires_grad=False)
            weights = layer.quantize_weight
            assert isinstance(weights, PercentileWeights)
            scaled = name in behind_norm and not name.endswith("reduction")
            dual = self.config.dual_uniform and scaled
            layer.quantize_weight = GridWeights(layer.weight, weights.bits, dual=dual)
            if self.config.mode == "faithful" and name.endswith("patch_embed.proj"):
                layer.input_quantizer = nn.Identity()
        return student.eval()

    def protocol(self, bits: Bits) -> dict[str, Any]:
        """What is quantized and how."""
        inherited = super().protocol(bits)
        faithful = self.config.mode == "faithful"
        return inherited | {
            "engine": "error_reduction",
            "weights": "per output channel, asymmetric, of ten percentile ranges that of least squared error"
            + (
                "; behind a LayerNorm two ranges per output channel, one of them for outlying columns, which "
                "costs one more scale and zero point per row"
                if self.config.dual_uniform
                else ""
            ),
            "first_layer": "weights at the target bits, input image "
            + ("in full precision" if faithful else "at 8 bits"),
            "ridge": self.config.ridge,
            "refinement_steps": self.config.refinement_steps,
            "training": "none; weights of linear layers and the patch embedding in closed form",
        }

    def _fit(self, student: nn.Module, teacher: Backbone, images: Tensor, progress: Progress) -> None:
        """Set the activations' ranges under float weights, then replace the weights, layer by layer."""
        import torch

        from methods.quantization.weight_grids import passing_weights

        with passing_weights(student):
            super()._fit(student, teacher, images, progress)
        with torch.no_grad():
            moments = _moments(student, images)
            layers = {name: m for name, m in student.named_modules() if _is_layer(m)}
            for done, (name, layer) in enumerate(layers.items(), start=1):
                self._reduce(name, layer, moments.pop(name, None))
                progress(done, len(layers), {})

    def _reduce(self, name: str, layer: Any, found: _LayerMoments | None) -> None:
        """Give a layer its new weights, bias and grid, in place. Raises TrainingFailed naming it."""
        import torch

        from methods.quantization.error_reduction import (
            EntryGrids,
            fit_to_quantized_inputs,
            round_by_halves,
        )
        from methods.quantization.layers import QuantizedLinear
        from methods.quantization.weight_grids import GridWeights

        grid = layer.quantize_weight
        assert isinstance(grid, GridWeights)
        if found is None:
            grid.fit(layer.weight)
            layer.weight.copy_(grid(layer.weight))
            return
        moments, linear = found.moments, isinstance(layer, QuantizedLinear)
        weight = torch.cat([layer.weight.flatten(1), layer.bias[:, None]], dim=1).double()
        scaled = self._share(found)
        if linear:
            fitted = _POOLED_RIDGE if found.pooled else self.config.ridge
            weight = fit_to_quantized_inputs(weight, moments, scaled * fitted)
        moved = weight[:, :-1].to(layer.weight.dtype).view_as(layer.weight)
        grid.fit(moved)
        scale, zero_point = (p.flatten(1).double() for p in grid.parameters_of_entries())
        weight = round_by_halves(
            weight,
            EntryGrids(scale, zero_point, grid.bits),
            moments,
            scaled * self.config.ridge * (1.0 if linear else _PATCH_EMBEDDING),
            self.config.refinement_steps if linear else 0,
        )
        if not bool(weight.isfinite().all()):
            raise TrainingFailed(
                f"error reduction of {name} left weights that are not finite: raise ridge or check the images"
            )
        layer.weight.copy_(grid(weight[:, :-1].to(layer.weight.dtype).view_as(layer.weight)))
        layer.bias.copy_(weight[:, -1])

    def _share(self, found: _LayerMoments) -> float:
        """By what the ridge is multiplied for so many tokens."""
        if self.config.mode == "faithful":
            return 1.0
        return found.moments.tokens / (_IMAGES if found.pooled else _TOKENS)


def _is_layer(module: nn.Module) -> bool:
    from methods.quantization.layers import QuantizedConv2d, QuantizedLinear

    return isinstance(module, QuantizedLinear | QuantizedConv2d)


def _is_fitted(name: str, module: nn.Module) -> bool:
    """Whether a layer's weights are found in closed form, if any value reaches it."""
    from methods.quantization.layers import QuantizedConv2d, QuantizedLinear

    if isinstance(module, QuantizedConv2d):
        return name.endswith("patch_embed.proj") and module.groups == 1
    return isinstance(module, QuantizedLinear) and module.weight.shape[1] <= _WIDEST


def _moments(student: nn.Module, images: Tensor) -> dict[str, _LayerMoments]:
    """Name -> the moments of quantized inputs and full-precision outputs, in the full-precision network."""
    from methods.quantization.error_reduction import Moments
    from methods.quantization.layers import QuantizedConv2d

    exact = _in_full_precision(student)
    found: dict[str, _LayerMoments] = {}

    def watch(name: str, layer: nn.Module, x: Tensor, output: Tensor) -> None:
        if x.numel() == 0:  # the box head of a detector that proposes nothing
            return
        quantized: Tensor = student.get_submodule(name).get_submodule("input_quantizer")(x)
        if isinstance(layer, QuantizedConv2d):
            quantized, output = _patches(layer, quantized), output.flatten(2).mT
        moments = Moments.of(quantized, output)
        if name in found:
            found[name].moments.add(moments)
        else:
            found[name] = _LayerMoments(moments, pooled=x.dim() == 2)

    for name, layer in exact.named_modules():
        if _is_fitted(name, layer):
            layer.register_forward_hook(
                lambda module, arguments, output, name=name: watch(name, module, arguments[0], output)
            )
    for start in range(0, len(images), _BATCH):
        exact(images[start : start + _BATCH])
    return found


def _patches(convolution: Any, x: Tensor) -> Tensor:
    """What a convolution's filters see, (B, places, in * height * width)."""
    import torch.nn.functional as F

    size = convolution.weight.shape[2:]
    return F.unfold(x, size, convolution.dilation, convolution.padding, convolution.stride).mT


def _in_full_precision(student: nn.Module) -> nn.Module:
    """A copy that quantizes nothing."""
    from torch import nn

    from methods.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedMatMul

    exact = copy.deepcopy(student)
    for module in exact.modules():
        if isinstance(module, QuantizedLinear | QuantizedConv2d):
            module.input_quantizer = module.quantize_weight = nn.Identity()
        elif isinstance(module, QuantizedMatMul):
            module.first_quantizer = module.second_quantizer = nn.Identity()
    return exact
