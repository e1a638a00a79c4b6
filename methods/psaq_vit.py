"""PSAQ-ViT: images whose patches are as diverse to self-attention as those of a photograph are.

Li et al., ECCV 2022, arXiv 2203.02250; follows the released code (zkkli/PSAQ-ViT).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from methods.base import Method
from methods.settings import setting
from methods.synthesis.loop import Batch, ImageOptimizer, Objective, cosine

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

_REFERENCE_NUMBERS = 32 * 3 * 224 * 224
"""Numbers in the batch for which the paper's range of total variation was chosen."""


@dataclass(frozen=True)
class PsaqVitConfig:
    """Defaults are the released code's."""

    images: int = setting(32, "Number of images.", low=1, high=1024, smoke=4, tunable=False)
    batch_size: int = setting(32, "Images optimised together.", low=1, high=256, smoke=4, tunable=False)
    iterations: int = setting(
        1000, "Optimisation steps of a batch, half in each phase.", low=2, high=4000, fast=300, smoke=4
    )
    learning_rate: float = setting(0.20, "Adam's learning rate.", low=0.02, high=1.0, log=True)
    swin_rate_factor: float = setting(
        1.25, "Times the learning rate for Swin: 0.25.", low=0.1, high=10.0, tunable=False
    )
    entropy_weight: float = setting(1.0, "Weight of the patch-similarity entropy.", low=0.0, high=10.0)
    one_hot_weight: float = setting(1.0, "Weight of the class loss.", low=0.0, high=10.0)
    variation_weight: float = setting(
        0.05, "Weight of the distance to the total variation.", low=0.0, high=1.0
    )
    kde_points: int = setting(10, "Grid points of the kernel density.", low=2, high=1000, tunable=False)
    bandwidth: float = setting(0.01, "Bandwidth of the kernel density.", low=1e-4, high=1.0, log=True)
    faithful_swin_drop: bool = setting(
        False,
        "Leave out the first token of every Swin window, as the code does.",
        choices=(False, True),
        tunable=False,
    )


class PsaqVitObjective(Objective):
    """- sum over layers of the patch-similarity entropy + class loss + |total variation - tau|."""

    def __init__(self, config: Any, batch: Batch) -> None:
        import torch

        super().__init__(config, batch)
        numbers = len(batch.labels) * math.prod(batch.teacher.data.input_size)
        drawn = float(torch.empty(()).uniform_(2500, 3000, generator=batch.generator))
        self._wanted_variation = drawn * math.sqrt(numbers / _REFERENCE_NUMBERS)
        swin = batch.teacher.spec.family == "swin"
        self._base_rate = config.learning_rate * (config.swin_rate_factor if swin else 1.0)
        drops_patch = swin and config.faithful_swin_drop
        self._skip_tokens = 1 if drops_patch else batch.teacher.prefix_tokens
        self._phase = math.ceil(config.iterations / 2)

    def view(self, images: Tensor, iteration: int) -> Tensor:
        """Rolled by the same offset in both axes, up to 15 pixels of 224, then 30; perhaps mirrored."""
        from methods.synthesis.augmentations import jitter_limit, random_flip, random_roll

        limit = jitter_limit(15 if iteration < self._phase else 30, images)
        rolled = random_roll(images, limit, generator=self.batch.generator, same_offset=True)
        return random_flip(rolled, generator=self.batch.generator)

    def losses(self, images: Tensor, view: Tensor, iteration: int) -> Mapping[str, Tensor]:
        """The three terms, weighted."""
        import torch

        from backbones.explicit import AttentionTaps
        from methods.synthesis.patch_similarity import patch_similarity_entropy
        from methods.synthesis.priors import one_hot_loss, total_variation

        with AttentionTaps(self.batch.teacher.model, outputs=True) as taps:
            predictions = self.batch.teacher.model(view)
        entropies = [
            patch_similarity_entropy(
                outputs,
                len(images),
                skip_tokens=self._skip_tokens,
                points=self.config.kde_points,
                bandwidth=self.config.bandwidth,
            )
            for outputs in taps.outputs
        ]
        variation = (total_variation(view) - self._wanted_variation).abs()
        return {
            "patch_entropy": -self.config.entropy_weight * torch.stack(entropies).sum(),
            "one_hot": self.config.one_hot_weight * one_hot_loss(predictions, self.batch.labels),
            "variation": self.config.variation_weight * variation,
        }

    def optimizer(self, images: Tensor) -> Optimizer:
        """Adam with the code's momentum."""
        import torch

        return torch.optim.Adam([images], lr=self._base_rate, betas=(0.5, 0.9), fused=True)

    def learning_rate(self, iteration: int) -> float:
        """In each phase: linear warm-up over its first fifth, then a cosine to 0."""
        step = iteration % self._phase
        warm_up = self._phase // 5
        if step < warm_up:
            return self._base_rate * (step + 1) / warm_up
        return cosine(self._base_rate, 0.0, (step - warm_up) / (self._phase - warm_up))


class PsaqVit(ImageOptimizer):
    """32 images from one batch."""

    Config = PsaqVitConfig
    Objective = PsaqVitObjective


METHOD = Method(
    name="psaq_vit",
    synthesizer=PsaqVit,
    engine="psaq_ptq",
    title="PSAQ-ViT",
    citation="Patch Similarity Aware Data-Free Quantization for Vision Transformers, ECCV 2022, "
    "arXiv 2203.02250",
    published_name="PSAQ-ViT",
    published_elsewhere={"block_reconstruction": "PSAQ-ViT (SARDFQ quantizer)"},
    sources={
        "patch-similarity entropy": "code",
        "class and total-variation loss": "code",
        "optimizer, phases and schedule": "code",
        "views": "code",
        "quantizer": "code",
        "sizes other than 224 pixels": "ours",
    },
    deviations=(
        "tau, the wanted total variation, is scaled by sqrt(numbers in the batch / (32*3*224*224)): norms "
        "grow with the batch and the image; equal to the code at its own sizes",
        "the clamp uses the model's own mean and std; the code uses ImageNet's for every model",
        "token 0 is left out for models with a CLS token only; the code also drops a real patch of every "
        "Swin window (faithful_swin_drop)",
        "shift limits are scaled with the image's side relative to 224 pixels",
        "the kernel density leaves out kernel values below 1e-10 of the peak",
    ),
    not_established=(
        "ViT-S and ViT-B are absent from the released models: same recipe, the model's own mean and std",
        "settings of the percentile and OMSE observers of the paper: min-max, as released",
    ),
)
