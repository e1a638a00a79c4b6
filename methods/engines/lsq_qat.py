"""Engine E2, the quantization-aware training of MaskAQ and MimiQ: LSQ activations, distilled heads.

Source: MaskAQ (ICML 2026, arXiv 2606.04373), released code; MimiQ (AAAI 2025, arXiv 2407.20021) shares it.
Every convolution, linear layer and attention product is quantized; LayerNorm, softmax, GELU, residual sums
and embeddings stay in full precision, as does the input of the patch embedding. On a detector neck and heads
are quantized alike; what trains a student is the distance that the backbone's guidance gives. Layers behind
the choice of regions get no gradient from it and keep the teacher's weights, quantized. All of this is ours.

Deviations:
- `mode` fixed (the default) starts the activation ranges by least squared error and keeps softmax outputs
  on unsigned levels; faithful does as released (`methods.quantization.lsq`);
- learned scales have a floor of 1e-8 in both modes; the released code has none;
- epochs without optimizer steps are not computed but for the batch that sets the ranges: the rest of their
  work leaves nothing behind;
- the blur shrinks with the image, and is done in two one-dimensional passes;
- the gradient factor 0.01 of the classifier in mode faithful also holds for Swin, whose released path does
  not run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from backbones.base import FAMILIES, Backbone
from methods.base import Engine, EpochMonitor, ImageSource, Progress, silent
from methods.bits import Bits
from methods.scope import SCOPES, WIDTH_OF_HEADS, bits_by_name
from methods.settings import setting

if TYPE_CHECKING:
    from torch import Generator, nn

    from methods.quantization.lsq import LsqQuantizer


@dataclass(frozen=True)
class LsqQatConfig:
    """Hyper-parameters of quantization-aware training; defaults are the released code's."""

    mode: Literal["fixed", "faithful"] = setting(
        "fixed",
        "fixed: ranges start by least squared error, softmax unsigned; faithful: as the released code.",
        choices=("fixed", "faithful"),
        tunable=False,
    )
    epochs: int = setting(100, "Passes over the images.", low=1, high=400, tunable=False, fast=10, smoke=1)
    warmup_epochs: int = setting(
        2, "First epochs without optimizer steps.", low=0, high=20, tunable=False, fast=0, smoke=0
    )
    batch_size: int = setting(16, "Images per step.", low=1, high=256)
    learning_rate: float = setting(1e-3, "SGD's learning rate at the start.", low=1e-5, high=1e-1, log=True)
    eta_min_fraction: float = setting(0.01, "Last learning rate over the first.", low=0.0, high=1.0)
    momentum: float = setting(0.9, "Nesterov momentum.", low=0.0, high=0.99)
    weight_decay: float = setting(0.0, "SGD's weight decay.", low=0.0, high=1e-2)
    temperature: float = setting(5.0, "Temperature of the logit distillation.", low=1.0, high=20.0)
    distillation: Literal["kl", "adadfq"] = setting(
        "kl",
        "Distillation of logits: kl, their divergence, or adadfq, the entropy of their difference (AdaDFQ).",
        choices=("kl", "adadfq"),
        tunable=False,
    )
    head_distillation: Literal["none", "structural", "masked"] = setting(
        "structural",
        "Distillation of attention outputs: none, structural (MimiQ) or masked (MaskAQ).",
        choices=("none", "structural", "masked"),
    )
    head_coefficient: float = setting(10.0, "Weight of the head distillation.", low=0.0, high=100.0)
    masked_ratio: float = setting(0.1, "Share of tokens that count more under masked.", low=0.0, high=1.0)
    masked_weight: float = setting(2.0, "How much those tokens count.", low=1.0, high=10.0)
    lsq_g_scale: float = setting(
        1.0,
        "Factor on the gradient of learned scales; in mode faithful the classifier has a hundredth of it.",
        low=1e-4,
        high=10.0,
        log=True,
    )
    augment: bool = setting(True, "Whether training images are cropped, flipped, recoloured and blurred.")
    crop_scale_min: float = setting(
        0.08, "Smallest random crop's share of the image area.", low=0.01, high=1.0
    )


class LsqQat(Engine):
    """Trains a student with quantized weights and learned activation ranges."""

    Config = LsqQatConfig
    families = FAMILIES
    scopes = frozenset(SCOPES)

    def prepare(self, teacher: Backbone, bits: Bits) -> nn.Module:
        """A copy with quantized layers; its activation ranges come from the first batch it sees."""
        from methods.quantization.conversion import quantizable_copy, replace_modules

        student = quantizable_copy(teacher)
        bits_of = bits_by_name(teacher, bits, self.scope)
        replace_modules(student, lambda name, module: self._replacement(name, module, bits_of(name)))
        return student.to(teacher.device).eval()

    def quantize(
        self,
        teacher: Backbone,
        source: ImageSource,
        bits: Bits,
        *,
        generator: Generator,
        progress: Progress = silent,
        on_epoch: EpochMonitor | None = None,
    ) -> nn.Module:
        """Train on the source's images; the last epoch is the result.

        Raises TrainingFailed when the loss is not finite, ValueError when no epoch would train, or for
        AdaDFQ's distillation on a detector.
        """
        from methods.engines.qat_training import train

        if self.config.warmup_epochs >= self.config.epochs:
            raise ValueError(
                f"warmup_epochs={self.config.warmup_epochs} leaves none of the {self.config.epochs} epochs "
                "to train in: raise epochs or lower warmup_epochs"
            )
        if self.config.distillation == "adadfq" and teacher.spec.is_detector:
            raise ValueError(
                f"distillation=adadfq compares class logits and {teacher.spec.name} is a detector: choose kl"
            )
        student = self.prepare(teacher, bits)
        train(
            student, teacher, source, self.config, generator=generator, progress=progress, on_epoch=on_epoch
        )
        return student

    def protocol(self, bits: Bits) -> dict[str, Any]:
        """What is quantized and how."""
        fixed = self.config.mode == "fixed"
        return {
            "engine": "lsq_qat",
            "scope": self.scope,
            "mode": self.config.mode,
            "weight_bits": bits.weights,
            "activation_bits": bits.activations,
            "weights": "per output channel, symmetric min-max, recomputed in every forward",
            "activations": "per tensor, learned scale and rounded zero point (LSQ)",
            "activation_start": "least squared error" if fixed else "as released",
            "quantized_tensors": (
                "inputs of every linear layer and both inputs of both attention products; in a detector also "
                "inputs of the convolutions of neck and heads but the mask head's transposed one"
            ),
            "first_layer": "weights at the target bits, input image in full precision",
            "last_layer": f"weights and input {WIDTH_OF_HEADS[self.scope]}",
            "softmax_output": "activation bits, unsigned" if fixed else "activation bits, mostly signed",
            "residual_stream": "full precision",
            "training": "quantization-aware, on synthetic images alone",
        }

    def _replacement(self, name: str, module: nn.Module, bits: Bits | None) -> nn.Module | None:
        """The quantized form of a layer; None for what stays as it is."""
        import functools

        from torch import nn

        from backbones.families.explicit import MatMul
        from methods.quantization.fake_quantize import symmetric_weights_straight_through
        from methods.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedMatMul

        if bits is None:
            return None
        weights = functools.partial(symmetric_weights_straight_through, bits=bits.weights)
        if isinstance(module, nn.Conv2d):
            reads_image = name.endswith("patch_embed.proj")
            return QuantizedConv2d(module, weights, None if reads_image else self._quantizer(bits))
        if isinstance(module, nn.Linear):
            return QuantizedLinear(module, weights, self._quantizer(bits, head=name.startswith("head")))
        if isinstance(module, MatMul):
            softmax = name.endswith(".av")
            return QuantizedMatMul(self._quantizer(bits, softmax=softmax), self._quantizer(bits))
        return None

    def _quantizer(self, bits: Bits, *, head: bool = False, softmax: bool = False) -> LsqQuantizer:
        from methods.quantization.lsq import LsqQuantizer

        config = self.config
        factor = 0.01 if head and config.mode == "faithful" else 1.0
        return LsqQuantizer(
            bits.activations, mode=config.mode, g_scale=factor * config.lsq_g_scale, softmax=softmax
        )
