"""Engine E1, the post-training quantization of PSAQ-ViT: min-max ranges from one full-precision pass.

Weights per output channel, symmetric; activations per tensor, asymmetric,
with an integer zero point; input image, residual stream and logits included; softmax output left alone.
On a detector the outputs of all layers of neck and heads come on top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from backbones.base import FAMILIES, Backbone
from methods.base import Engine, Evidence, QuantizationTask, SyntheticImages, TrainingFailed
from methods.bits import Bits
from methods.scope import SCOPES, WIDTH_OF_HEADS, bits_by_name
from methods.settings import setting

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PsaqPtqConfig:
    """Hyper-parameters of min-max calibration: none that a paper would name."""

    batch_size: int = setting(
        32, "Images in one calibration forward; bounds memory.", low=1, high=1024, tunable=False
    )


class PsaqPtq(Engine):
    """Quantizes every point of PSAQ-ViT's code with ranges from the given images; nothing is trained."""

    Config = PsaqPtqConfig
    config: PsaqPtqConfig
    families = FAMILIES
    scopes = frozenset(SCOPES)
    title = "PSAQ-ViT (post-training, min-max ranges)"
    citation = (
        "Patch Similarity Aware Data-Free Quantization for Vision Transformers, ECCV 2022, arXiv 2203.02250"
    )
    sources: ClassVar[Mapping[str, Evidence]] = {
        "quantizers and their ranges": "code",
        "quantization points of ViT and Swin": "code",
        "quantization points of detectors": "ours",
        "calibration": "code",
        "scopes": "ours",
    }
    deviations: ClassVar[tuple[str, ...]] = (
        "whether a range has been observed is a flag; the code takes x_max == 0 for not yet",
        "Swin's relative position bias is quantized after the gather from its table, which has the same "
        "extremes",
        "images come in batches, whose extremes are joined; the code makes one pass over all of them",
    )
    not_established: ClassVar[tuple[str, ...]] = (
        "settings of the percentile and OMSE observers that the paper also tries: min-max alone is offered",
    )

    def prepare(self, teacher: Backbone, bits: Bits) -> nn.Module:
        """A copy with quantized weights; its activations pass through until they are calibrated."""
        from methods.quantization.activations import MinMaxQuantizer
        from methods.quantization.conversion import quantizable_copy, quantize_input, quantize_output

        student = quantizable_copy(teacher)
        bits_of = bits_by_name(teacher, bits, self.scope)
        quantize_input(student, MinMaxQuantizer(bits.activations).to(teacher.device))
        for name in teacher.quantization_points():
            own = bits_of(name)
            if own is not None:
                quantize_output(student, name, MinMaxQuantizer(own.activations).to(teacher.device))
        _quantize_weights(student, bits_of)
        return student.eval()

    def quantize(self, task: QuantizationTask) -> nn.Module:
        """Calibrate on the source's images; once more if the source makes new ones with the student.

        Raises TrainingFailed when an activation is not finite.
        """
        student = self.prepare(task.teacher, task.bits)
        self._calibrate(student, task, task.source.first(student))
        refreshed = task.source.refreshed(1, student)
        if refreshed is not None:
            self._calibrate(student, task, refreshed)
        if task.on_epoch is not None:
            task.on_epoch(0, student)
        return student

    def protocol(self, bits: Bits) -> dict[str, Any]:
        """What is quantized and how."""
        return {
            "engine": "psaq_ptq",
            "scope": self.scope,
            "weight_bits": bits.weights,
            "activation_bits": bits.activations,
            "weights": "per output channel, symmetric min-max",
            "activations": "per tensor, asymmetric min-max, integer zero point",
            "quantized_tensors": (
                "input image, embeddings and their sum, LayerNorm outputs, qkv, scaled attention logits, "
                "attention outputs, projections, residual sums, GELU outputs, MLP outputs, logits; in Swin "
                "also position bias, biased logits, patch merging and the pooled features; in a detector the "
                "outputs of every layer of neck and heads but the mask head's transposed convolution"
            ),
            "first_layer": "weights and input image at the target bits",
            "last_layer": f"weights, input and output {WIDTH_OF_HEADS[self.scope]}",
            "softmax_output": "full precision",
            "residual_stream": "quantized",
            "training": "none",
        }

    def _calibrate(self, student: nn.Module, task: QuantizationTask, made: SyntheticImages) -> None:
        """Set every range from a forward with the teacher's weights, then quantize the weights again."""
        import torch

        from methods.quantization.activations import observing

        student.load_state_dict(task.teacher.model.state_dict(), strict=False)
        batches = torch.split(made.images, self.config.batch_size)
        with torch.no_grad(), observing(student):
            for index, batch in enumerate(batches):
                student(batch)
                task.progress(index + 1, len(batches), {})
        _quantize_weights(student, bits_by_name(task.teacher, task.bits, self.scope))
        _require_finite_ranges(student)


def _quantize_weights(student: nn.Module, bits_of: Callable[[str], Bits | None]) -> None:
    """Replace the weights of linear layers and convolutions that have bits by their quantized values."""
    import torch
    from torch import nn

    from methods.quantization.fake_quantize import symmetric_weights

    with torch.no_grad():
        for name, module in student.named_modules():
            bits = bits_of(name)
            if bits is not None and isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.copy_(symmetric_weights(module.weight, bits.weights))


def _require_finite_ranges(student: nn.Module) -> None:
    import torch

    from methods.quantization.activations import MinMaxQuantizer

    quantizers = {n: m for n, m in student.named_modules() if isinstance(m, MinMaxQuantizer)}
    # The input, registered last, comes first: the others only hand its faults on.
    quantizers = dict(sorted(quantizers.items(), key=lambda item: item[0] != "input_quantizer"))
    finite = torch.stack([(q.low + q.high).isfinite() for q in quantizers.values()]).tolist()
    for name, is_finite in zip(quantizers, finite, strict=True):
        if not is_finite:
            point = name.rpartition(".")[0] or "the input"
            raise TrainingFailed(f"calibration met a value that is not finite at {point}: check the images")
