"""Engine E2, the quantization-aware training of MaskAQ and MimiQ: LSQ activations, distilled heads.

Every convolution, linear layer and attention product is quantized; LayerNorm, softmax, GELU, residual sums
and embeddings stay in full precision, as does the input of the patch embedding. On a detector neck and heads
are quantized alike; what trains a student is the distance that the backbone's guidance gives. Layers behind
the choice of regions get no gradient from it and keep the teacher's weights, quantized.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from backbones.base import FAMILIES, Backbone
from methods.base import Evidence, QuantizationTask, Training, TrainingEngine, TrainingState
from methods.bits import Bits
from methods.engines.training_settings import TrainingSettings
from methods.scope import SCOPES, WIDTH_OF_HEADS, bits_by_name
from methods.settings import setting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from methods.quantization.lsq import LsqQuantizer


START_IS_OURS = (
    "range start: ours by default, searched behind each layer on plain images; the code takes statistics of "
    "the first augmented batch (range_start: released)"
)
"""Deviation of this engine, and of every method whose default it is."""


@dataclass(frozen=True)
class LsqQatConfig(TrainingSettings):
    """Hyper-parameters of the training and of its learned ranges; defaults are the released code's."""

    range_start: Literal["searched", "released"] = setting(
        "searched",
        "Where activation ranges start: searched behind each layer on plain images (ours), or released, from "
        "the first augmented batch.",
        choices=("searched", "released"),
        tunable=False,
    )
    search_images: int = setting(
        64, "Images that the search sees, spread evenly over the set.", low=1, high=1024, tunable=False
    )
    unsigned_softmax: bool = setting(
        True,
        "Whether softmax outputs have unsigned levels; as released they lose half of them to a sign.",
        choices=(False, True),
        tunable=False,
    )
    lsq_g_scale: float = setting(
        1.0,
        "Factor on the gradient of learned scales but the classifier's.",
        low=1e-4,
        high=10.0,
        log=True,
    )
    head_g_scale: float = setting(
        0.01,
        "The same of the scale of the classifier's input.",
        low=1e-4,
        high=10.0,
        log=True,
        tunable=False,
    )


class LsqQat(TrainingEngine):
    """Trains a student with quantized weights and learned activation ranges."""

    Config = LsqQatConfig
    config: LsqQatConfig
    families = FAMILIES
    scopes = frozenset(SCOPES)
    title = "LSQ with distillation (quantization-aware training)"
    citation = "MaskAQ, ICML 2026, arXiv 2606.04373; shared by MimiQ, AAAI 2025, arXiv 2407.20021"
    sources: ClassVar[Mapping[str, Evidence]] = {
        "weights and quantized layers": "code",
        "learned activation ranges": "code",
        "range start and levels of softmax outputs": "ours",
        "optimizer, schedule and views": "code",
        "distillation of logits and heads": "code",
        "distillation adadfq": "code",
        "quantization and training of detectors": "ours",
        "scopes": "ours",
        "budgets fast and smoke": "ours",
    }
    deviations: ClassVar[tuple[str, ...]] = (
        START_IS_OURS,
        "softmax outputs have unsigned levels (default); unsigned_softmax: false does as released",
        "learned scales have a floor of 1e-8; the released code has none",
        "epochs without optimizer steps are not computed but for the batch that sets the ranges: the rest of "
        "their work leaves nothing behind",
        "the blur shrinks with the image, and is done in two one-dimensional passes",
        "the gradient factor 0.01 of the classifier also holds for Swin, whose released path does not run",
        "images that no whole number of batches holds are cut into batches of nearly equal size; the code "
        "ends an epoch with a short batch whose step counts as much, but at its own 10,000 images has none",
    )
    not_established: ClassVar[tuple[str, ...]] = (
        "learning rate, distillation coefficient and weight decay of published rows other than DeiT-S W3A3: "
        "the code's defaults",
        "the coefficient of the head distillation behind the published table: 10, the code's default",
    )

    published_settings: ClassVar[Mapping[str, Any]] = {"range_start": "released", "unsigned_softmax": False}

    def prepare(self, teacher: Backbone, bits: Bits) -> nn.Module:
        """A copy with quantized layers; until they are searched, ranges come from the first batch it sees."""
        from methods.quantization.conversion import quantizable_copy, replace_modules

        student = quantizable_copy(teacher)
        bits_of = bits_by_name(teacher, bits, self.scope)
        replace_modules(student, lambda name, module: self._replacement(name, module, bits_of(name)))
        return student.to(teacher.device).eval()

    @property
    def epochs(self) -> int:
        """Epochs of the whole training."""
        return self.config.epochs

    def begin(self, task: QuantizationTask) -> Training:
        """The training of a fresh student.

        Raises ValueError when no epoch would train, or for AdaDFQ's distillation on a detector.
        """
        return self._training(task, None)

    def resume(self, task: QuantizationTask, state: TrainingState) -> Training:
        """The training that goes on from `state`; raises as `begin`."""
        return self._training(task, state)

    def _training(self, task: QuantizationTask, state: TrainingState | None) -> Training:
        from methods.engines.training import DistilledTraining
        from methods.quantization.lsq import close_ranges

        return DistilledTraining(
            self.prepare(task.teacher, task.bits),
            task,
            self.config,
            before_first_epoch=self._search_ranges,
            after_first_epoch=close_ranges,
            state=state,
        )

    def _search_ranges(self, student: nn.Module, images: Tensor) -> None:
        """On plain images spread over the whole set, so that the start hangs on no draw."""
        import math

        import torch

        from methods.quantization.range_search import search_ranges

        if self.config.range_start == "searched":
            count = min(self.config.search_images, len(images))
            chosen = images[torch.linspace(0, len(images) - 1, count, device=images.device).long()]
            search_ranges(student, chosen.tensor_split(math.ceil(count / self.config.batch_size)))

    def protocol(self, bits: Bits) -> dict[str, Any]:
        """What is quantized and how."""
        searched = self.config.range_start == "searched"
        unsigned = self.config.unsigned_softmax
        return {
            "engine": "lsq_qat",
            "scope": self.scope,
            "weight_bits": bits.weights,
            "activation_bits": bits.activations,
            "weights": "per output channel, symmetric min-max, recomputed in every forward",
            "activations": "per tensor, learned scale and rounded zero point (LSQ)",
            "activation_start": "searched (ours)" if searched else "as released",
            "quantized_tensors": (
                "inputs of every linear layer and both inputs of both attention products; in a detector also "
                "inputs of the convolutions of neck and heads but the mask head's transposed one"
            ),
            "first_layer": "weights at the target bits, input image in full precision",
            "last_layer": f"weights and input {WIDTH_OF_HEADS[self.scope]}",
            "softmax_output": f"activation bits, {'unsigned' if unsigned else 'mostly signed'}",
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
        return LsqQuantizer(
            bits.activations,
            released_start=config.range_start == "released",
            g_scale=config.head_g_scale if head else config.lsq_g_scale,
            unsigned=softmax and config.unsigned_softmax,
        )
