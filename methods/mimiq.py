"""MimiQ: images on which the attention heads agree about the structure they see.

Choi et al., AAAI 2025, arXiv 2407.20021; follows the functions that the released MaskAQ code kept of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backbones.base import FAMILIES
from methods.base import Method
from methods.engines.lsq_qat import START_IS_OURS
from methods.settings import setting
from methods.synthesis.loop import ImageOptimizer, Objective, cosine

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


_REFERENCE_NUMBERS = 16 * 3 * 224 * 224
"""Numbers in the batch for which the weight of the total variation was chosen."""


@dataclass(frozen=True)
class MimiqConfig:
    """Defaults are the code's."""

    images: int = setting(10_000, "Number of images.", low=1, high=100_000, fast=128, smoke=4, tunable=False)
    batch_size: int = setting(16, "Images optimised together.", low=1, high=256, smoke=4, tunable=False)
    iterations: int = setting(
        2000, "Optimisation steps of a batch.", low=1, high=4000, fast=150, smoke=2, tunable=False
    )
    learning_rate: float = setting(0.1, "AdamW's first learning rate.", low=0.01, high=0.5, log=True)
    final_learning_rate: float = setting(0.001, "Its last.", low=0.0, high=0.1, tunable=False)
    weight_decay: float = setting(1e-6, "AdamW's weight decay.", low=0.0, high=0.1, tunable=False)
    head_weight: float = setting(1.0, "Weight of the inter-head similarity.", low=0.0, high=10.0)
    one_hot_weight: float = setting(
        1.0, "Weight of the class loss, on a detector of the guidance's.", low=0.0, high=10.0
    )
    variation_weight: float = setting(
        2.5e-5, "Weight of the total variation.", low=0.0, high=1e-2, tunable=False
    )
    colour_noise: float = setting(
        0.5, "First amplitude of the colour shift; it falls to 0.", low=0.0, high=2.0, tunable=False
    )
    flip: bool = setting(
        False, "Mirror the batch with probability 0.5.", choices=(False, True), tunable=False
    )


class MimiqObjective(Objective):
    """Inter-head similarity + class loss + total variation, on shifted and recoloured views."""

    config: MimiqConfig

    def view(self, images: Tensor, iteration: int) -> Tensor:
        """Rolled up to 8 pixels of 224, then 16 in the second half; perhaps mirrored; recoloured."""
        from methods.synthesis import augmentations as augment

        generator = self.batch.generator
        limit = augment.jitter_limit(8 if iteration < self.config.iterations / 2 else 16, images)
        placement = augment.random_placement(limit, generator=generator, flip=self.config.flip)
        view = self.placed(images, placement)
        amplitude = self.config.colour_noise * (1 - iteration / self.config.iterations)
        view = augment.random_colour_shift(view, amplitude, generator=generator)
        return augment.random_colour_jitter(view, generator=generator)

    def losses(self, images: Tensor, view: Tensor, iteration: int) -> Mapping[str, Tensor]:
        """The three terms, weighted."""
        from backbones.families.explicit import AttentionTaps

        with AttentionTaps(self.batch.teacher.model, logits=True) as taps:
            outputs = self.batch.teacher.model(view)
        return self.prior_losses(images, outputs, taps.logits)

    def prior_losses(self, images: Tensor, outputs: Any, layers: list[Tensor]) -> dict[str, Tensor]:
        """From the teacher's outputs and its attention logits, one tensor per layer."""
        import torch

        from methods.synthesis.attention_priors import head_ssim_loss
        from methods.synthesis.priors import total_variation_by_distance

        prefix = self.batch.teacher.prefix_tokens
        heads = torch.stack([head_ssim_loss(logits, prefix_tokens=prefix) for logits in layers]).mean()
        wanted = self.batch.teacher.guidance.loss(outputs, self.targets)
        scale = math.sqrt(_REFERENCE_NUMBERS / images.numel())
        return {
            "head_similarity": self.config.head_weight * heads,
            "one_hot": self.config.one_hot_weight * wanted,
            "variation": self.config.variation_weight * scale * total_variation_by_distance(images),
        }

    def optimizer(self, images: Tensor) -> Optimizer:
        """AdamW with PyTorch's momentum."""
        import torch

        decay = self.config.weight_decay
        return torch.optim.AdamW([images], lr=self.config.learning_rate, weight_decay=decay, fused=True)

    def learning_rate(self, iteration: int) -> float:
        """A cosine over all iterations."""
        share = iteration / self.config.iterations
        return cosine(self.config.learning_rate, self.config.final_learning_rate, share)


class Mimiq(ImageOptimizer):
    """Images from the teacher alone, made once."""

    families = FAMILIES
    Config = MimiqConfig
    Objective = MimiqObjective


METHOD = Method(
    name="mimiq",
    synthesizer=Mimiq,
    engine="lsq_qat",
    title="MimiQ",
    citation="MimiQ: Low-Bit Data-Free Quantization of Vision Transformers with Encouraging Inter-Head "
    "Attention Similarity, AAAI 2025, arXiv 2407.20021",
    published_name="MimiQ",
    sources={
        "inter-head similarity": "code",
        "class and total-variation loss": "code",
        "optimizer and schedule": "note",
        "views": "code",
        "quantizer and training": "note",
        "sizes other than 224 pixels": "ours",
        "guidance on detectors": "ours",
    },
    deviations=(
        "SSIM is computed from covariances of the rows, without the normalized maps; equal to the code",
        "the weight of the total variation is scaled by sqrt(16*3*224*224 / numbers in the batch): norms "
        "grow with the batch and the image; equal to the code at its own sizes",
        "shift limits are scaled with the image's side relative to 224 pixels",
        "the colour shift's amplitude ends at 0; in the code the last iteration wraps to the full amplitude",
        START_IS_OURS,
    ),
    not_established=(
        "whether flips were on: off",
        "learning rate of the training per backbone and bit-width: that of the engine",
        "epochs: 200 for every backbone, as MaskAQ's code runs, which shares its options; notes quote 100 "
        "(DeiT-S) and 200 (DeiT-B) from configuration files without saying whether they are read",
        "the checkpoint behind the published ViT-T full-precision row (72.01): ours is reported beside it",
    ),
    engine_settings=lambda config: {"head_distillation": "structural"},
)
