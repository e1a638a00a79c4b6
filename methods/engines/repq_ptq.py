"""Engine E3, the post-training quantization of RepQ-ViT: percentile ranges, one calibration batch.

Inputs and weights of every convolution,
linear layer and attention product are quantized; softmax outputs on powers of sqrt(2); LayerNorm, softmax,
GELU and residual sums stay in full precision. Ranges after a LayerNorm are searched per channel and made
one by `methods.quantization.reparameterization`. On a detector, as released, all of it is quantized and only
the backbone's ranges are made one; where Swin pads its windows, the padding then is not what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from backbones.base import FAMILIES, Backbone
from methods.base import Engine, Evidence, Progress, QuantizationTask, SyntheticImages, TrainingFailed
from methods.bits import Bits
from methods.scope import SCOPES, WIDTH_OF_HEADS, bits_by_name
from methods.settings import setting

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

_FIRST_INPUT_BITS = 8


@dataclass(frozen=True)
class RepqPtqConfig:
    """Hyper-parameters of RepQ-ViT's calibration."""

    mode: Literal["fixed", "faithful"] = setting(
        "fixed",
        "fixed: reparameterized zero points are rounded, ranges after GELU searched behind the next norm; "
        "faithful: as released.",
        choices=("fixed", "faithful"),
        tunable=False,
    )
    calibration_images: int = setting(
        32, "Images that set the ranges, in one batch.", low=1, high=1024, tunable=False
    )
    compensation: Literal["none", "qwt"] = setting(
        "none",
        "qwt: a linear layer beside each block predicts its quantization error; it wants 128 images or more.",
        choices=("none", "qwt"),
        tunable=False,
    )
    compensation_images: int = setting(
        512, "Images that compensation is fitted on.", low=1, high=4096, tunable=False, fast=128, smoke=4
    )


class RepqPtq(Engine):
    """Quantizes every layer's input and weights with percentile ranges; nothing is trained."""

    Config = RepqPtqConfig
    config: RepqPtqConfig
    families = FAMILIES
    scopes = frozenset(SCOPES)
    title = "RepQ-ViT (post-training, percentile ranges)"
    citation = (
        "RepQ-ViT: Scale Reparameterization for Post-Training Quantization of Vision Transformers, "
        "ICCV 2023, arXiv 2212.08254"
    )
    sources: ClassVar[Mapping[str, Evidence]] = {
        "quantizers and their ranges": "code",
        "reparameterization after LayerNorm": "code",
        "rounding of zero points, ranges after GELU": "ours",
        "calibration images": "code",
        "scopes": "ours",
        "compensation": "code",
        "ridge of the compensation": "ours",
    }
    deviations: ClassVar[tuple[str, ...]] = (
        "mode fixed (default) rounds the mean zero point of the channels, and searches the ranges of GELU "
        "outputs by the error behind the next LayerNorm; mode faithful does as released",
        "scales have a floor of 1e-8, and a constant channel's range reaches zero",
        "more images than calibration_images are shuffled by seed and cut; all go through in one batch",
        "a detector is calibrated on the method's images; the released script takes the first batch of the "
        "evaluation data",
        "compensation (QwT) is fitted on the method's images as they are, those of calibration among them, "
        "in one batch and in float64; released, on 512 augmented training images. In mode fixed it gets a "
        "ridge of 1 % of the inputs' mean variance where there are fewer than 64 tokens per unknown",
    )
    not_established: ClassVar[tuple[str, ...]] = (
        "calibration with more than 32 images: a shuffle by seed and the first 32",
        "published values at W4A8 and W5A5: none were read",
        "compensation with other numbers of images, and at W3A3: nothing was published",
    )

    published_settings: ClassVar[Mapping[str, Any]] = {"mode": "faithful"}

    def prepare(self, teacher: Backbone, bits: Bits) -> nn.Module:
        """A copy with quantized weights; its activations pass through until they are calibrated."""
        import torch
        from torch import nn

        from methods.quantization.compensation import add_compensation
        from methods.quantization.conversion import quantizable_copy, replace_modules
        from methods.quantization.reparameterization import normed_layers

        student = quantizable_copy(teacher)
        after_norm = {pair.layer for pair in normed_layers(student)}
        for name in after_norm:
            layer = student.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            if layer.bias is None:  # Swin's patch merging; reparameterization needs one
                zeros = torch.zeros(layer.out_features, device=layer.weight.device)
                layer.bias = nn.Parameter(zeros, requires_grad=False)
        bits_of = bits_by_name(teacher, bits, self.scope)
        replace_modules(
            student, lambda name, module: _replacement(name, module, bits_of(name), name in after_norm)
        )
        if self.config.compensation == "qwt":
            add_compensation(student)
        return student.to(teacher.device).eval()

    def quantize(self, task: QuantizationTask) -> nn.Module:
        """Calibrate on the source's images; anew if the source makes other ones with the student.

        Raises TrainingFailed when an activation is not finite.
        """
        student = self.prepare(task.teacher, task.bits)
        self._make(student, task, task.source.first(student))
        refreshed = task.source.refreshed(1, student)
        if refreshed is not None:
            student = self.prepare(task.teacher, task.bits)
            self._make(student, task, refreshed)
        if task.on_epoch is not None:
            task.on_epoch(0, student)
        return student

    def protocol(self, bits: Bits) -> dict[str, Any]:
        """What is quantized and how."""
        fixed = self.config.mode == "fixed"
        return {
            "engine": "repq_ptq",
            "scope": self.scope,
            "mode": self.config.mode,
            "weight_bits": bits.weights,
            "activation_bits": bits.activations,
            "weights": "per output channel, asymmetric, percentile range of least squared error",
            "activations": "per tensor, asymmetric, percentile range of least squared error; after LayerNorm "
            f"reparameterized from per-channel ranges, zero point {'rounded' if fixed else 'not rounded'}"
            + ("; after GELU of least squared error behind the next LayerNorm" if fixed else ""),
            "quantized_tensors": (
                "inputs of every convolution and linear layer and both inputs of both attention products; in "
                "a detector not the mask head's transposed convolution"
            ),
            "first_layer": "weights at the target bits, input image at 8 bits",
            "last_layer": f"weights and input {WIDTH_OF_HEADS[self.scope]}",
            "softmax_output": "activation bits, powers of sqrt(2)",
            "residual_stream": "full precision",
            "calibration_images": self.config.calibration_images,
            "training": "none",
        } | self._compensation_protocol()

    def _compensation_protocol(self) -> dict[str, Any]:
        if self.config.compensation == "none":
            return {}
        return {
            "compensation": "a linear layer beside each block, weights of 16 bits and bias of 32, which is "
            "C^2 + C values more per block of width C",
            "compensation_images": self.config.compensation_images,
        }

    def _make(self, student: nn.Module, task: QuantizationTask, made: SyntheticImages) -> None:
        """Calibrate, and fit what else there is, on the first images after a shuffle."""
        images = _shuffled(made, task.generator)
        self._fit(student, task.teacher, images[: self.config.calibration_images], task.progress)
        if self.config.compensation == "qwt":
            from methods.quantization.compensation import fit_compensation

            fit_compensation(
                student,
                task.teacher.model,
                images[: self.config.compensation_images],
                with_ridge=self.config.mode == "fixed",
                on_block=lambda done, blocks, explained: task.progress(done, blocks, {"r2": explained}),
            )

    def _fit(self, student: nn.Module, teacher: Backbone, images: Tensor, progress: Progress) -> None:
        """Set every range from one forward pass, then make those after a LayerNorm one."""
        import contextlib

        import torch
        from torch import nn

        from methods.quantization.fitting import fitting
        from methods.quantization.layers import QuantizedLinear
        from methods.quantization.reparameterization import normed_layers, reparameterize
        from methods.quantization.residual_ranges import searching_behind_norm

        fixed = self.config.mode == "fixed"
        searching = searching_behind_norm(student) if fixed else contextlib.nullcontext()
        with torch.no_grad(), fitting(student), searching:
            student(images)
        _require_finite_ranges(student)
        for pair in normed_layers(student):
            norm, layer = student.get_submodule(pair.norm), student.get_submodule(pair.layer)
            assert isinstance(norm, nn.LayerNorm)
            assert isinstance(layer, QuantizedLinear)
            reparameterize(norm, layer, round_zero_point=fixed)
        progress(1, 1, {})


def _shuffled(made: SyntheticImages, generator: Generator) -> Tensor:
    import torch

    order = torch.randperm(len(made.images), generator=generator)
    return made.images[order.to(made.images.device)]


def _replacement(name: str, module: nn.Module, bits: Bits | None, after_norm: bool) -> nn.Module | None:
    """The quantized form of a layer; None for what stays as it is."""
    from torch import nn

    from backbones.families.explicit import MatMul
    from methods.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedMatMul
    from methods.quantization.log_sqrt2 import LogSqrt2Quantizer
    from methods.quantization.percentile import PercentileQuantizer, PercentileWeights

    if bits is None:
        return None
    if isinstance(module, nn.Conv2d):
        weights = PercentileWeights(module.weight, bits.weights)
        reads_image = name.endswith("patch_embed.proj")
        inputs = PercentileQuantizer(_FIRST_INPUT_BITS if reads_image else bits.activations)
        return QuantizedConv2d(module, weights, inputs)
    if isinstance(module, nn.Linear):
        weights = PercentileWeights(module.weight, bits.weights)
        inputs = PercentileQuantizer(bits.activations, per_channel=after_norm)
        return QuantizedLinear(module, weights, inputs)
    if isinstance(module, MatMul):
        Attention = LogSqrt2Quantizer if name.endswith(".av") else PercentileQuantizer
        return QuantizedMatMul(Attention(bits.activations), PercentileQuantizer(bits.activations))
    return None


def _require_finite_ranges(student: nn.Module) -> None:
    import torch

    from methods.quantization.fitting import fitted_quantizers

    quantizers = fitted_quantizers(student)
    finite = torch.stack([q.scale.isfinite().all() for q in quantizers.values()]).tolist()
    for name, is_finite in zip(quantizers, finite, strict=True):
        if not is_finite:
            point = name.rpartition(".")[0]
            raise TrainingFailed(
                f"calibration met a value that is not finite at the input of {point}: check the images"
            )
