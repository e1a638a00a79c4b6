"""FDD: PSAQ-ViT's images grown from coarse to fine, in five stages of rising frequency.

Frequency Domain Distillation, PRCV 2023; follows the released code (ngrxmu/FDD-DFQ-ViT).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from methods.base import Method
from methods.psaq_vit import PsaqVitConfig, PsaqVitObjective
from methods.settings import setting
from methods.synthesis import psaq_recipe
from methods.synthesis.loop import Batch, ImageOptimizer

if TYPE_CHECKING:
    from torch import Tensor


class _Radii(NamedTuple):
    """Radii of one stage, as fractions of the highest frequency of an axis."""

    low_outer: float
    high_outer: float
    high_inner: float


_STAGES = (
    _Radii(0.2, 0.4, 0.1),
    _Radii(0.3, 0.5, 0.2),
    _Radii(0.4, 0.6, 0.3),
    _Radii(0.5, 0.7, 0.4),
    _Radii(0.6, 1.0, 0.0),
)


@dataclass(frozen=True)
class FddConfig(PsaqVitConfig):
    """Defaults are the released code's."""

    iterations: int = setting(
        1000, "Optimisation steps of a batch, a fifth in each stage.", low=10, high=4000, fast=200, smoke=10
    )
    distillation_share: float = setting(
        0.5,
        "Share of the class loss that high frequencies take from the low-pass prediction, not the label.",
        low=0.0,
        high=1.0,
    )


class FddObjective(PsaqVitObjective):
    """PSAQ-ViT's terms on a filtered view: low frequencies in a stage's first half, then a band of them."""

    jitter = (0, 6, 13, 20, 26)

    def __init__(self, config: Any, batch: Batch) -> None:
        from methods.synthesis.frequency import ring

        super().__init__(config, batch)
        _, height, width = batch.teacher.data.input_size
        device = batch.teacher.device
        self._low_passes = [ring(height, width, stage.low_outer).to(device) for stage in _STAGES]
        self._high_passes = [
            ring(height, width, stage.high_outer, stage.high_inner).to(device) for stage in _STAGES
        ]
        self._black, self._white = batch.teacher.pixel_range()

    def losses(self, images: Tensor, view: Tensor, iteration: int) -> Mapping[str, Tensor]:
        """The three terms, weighted; the filter commutes with the view's shift and flip."""
        import torch
        import torch.nn.functional as F

        from methods.synthesis.priors import one_hot_loss

        stage, step = divmod(iteration, self.phase)
        coarse = self._filtered(view, self._low_passes[stage])
        in_first_half = 2 * step < self.phase
        shown = coarse if in_first_half else self._filtered(view, self._high_passes[stage])
        predictions, entropy = self.seen(shown)
        wanted = one_hot_loss(predictions, self.batch.labels)
        if not in_first_half:
            with torch.no_grad():
                target = self.batch.teacher.model(coarse).softmax(dim=1)
            distance = F.kl_div(predictions.log_softmax(dim=1), target, reduction="batchmean")
            wanted = torch.lerp(wanted, distance, self.config.distillation_share)
        return {
            "patch_entropy": entropy,
            "one_hot": self.config.one_hot_weight * wanted,
            "variation": self.variation(shown),
        }

    def _filtered(self, view: Tensor, frequencies: Tensor) -> Tensor:
        """Filtered in pixel space, between black (0) and white (1), and normalized again."""
        from methods.synthesis.frequency import filtered

        span = self._white - self._black
        return filtered((view - self._black) / span, frequencies) * span + self._black


class Fdd(ImageOptimizer):
    """32 images from one batch."""

    Config = FddConfig
    Objective = FddObjective


METHOD = Method(
    name="fdd",
    synthesizer=Fdd,
    engine="psaq_ptq",
    title="FDD",
    citation="Frequency Domain Distillation for Data-Free Quantization of Vision Transformer, PRCV 2023",
    published_name="FDD",
    sources={
        "stages, radii and distillation": "code",
        "patch-similarity entropy, class and total-variation loss": "code",
        "optimizer, schedule and views": "code",
        "quantizer": "code",
        "sizes other than 224 pixels": "ours",
    },
    deviations=(
        "filters are centred on frequency 0; the code's lie half a frequency off it",
        "radii are fractions of the highest frequency of the image's own size; equal to the code at 224",
        *psaq_recipe.DEVIATIONS,
        "token 0 is left out for models with a CLS token only; the code also drops a real patch of every "
        "Swin window (faithful_swin_drop)",
        "the kernel density leaves out kernel values below 1e-10 of the peak",
    ),
    not_established=(
        "spread over seeds of the published rows, which are single runs; their gains over PSAQ-ViT lie "
        "within what PSAQ-ViT varies on Swin",
    ),
)
