"""CLAMP-style images: every patch agrees with its most alike neighbours and differs from the other ones.

Ramachandran et al., ECCV 2024, arXiv 2407.05266. The authors released neither synthesis nor search; the loss
below is our reading of what is known about it, in PSAQ-ViT's recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.base import Method
from methods.settings import setting
from methods.synthesis import psaq_recipe
from methods.synthesis.loop import ImageOptimizer
from methods.synthesis.psaq_recipe import PsaqRecipe, PsaqRecipeConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ClampVitConfig(PsaqRecipeConfig):
    """Neighbourhood and positives are the paper's, as noted by others; the rest is ours."""

    iterations: int = setting(
        1000, "Optimisation steps of a batch, half in each phase.", low=2, high=4000, fast=200, smoke=4
    )
    contrast_weight: float = setting(1.0, "Weight of the patch contrast.", low=0.0, high=10.0)
    positives: int = setting(4, "Neighbours, of up to eight, that a patch should agree with.", low=1, high=7)
    temperature: float = setting(0.1, "Temperature of the patch contrast.", low=0.01, high=1.0, log=True)


class ClampVitObjective(PsaqRecipe):
    """Mean over layers of the patch contrast + class loss + |total variation - tau|."""

    def losses(self, images: Tensor, view: Tensor, iteration: int) -> Mapping[str, Tensor]:
        """The three terms, weighted."""
        import torch

        from backbones.families.explicit import AttentionTaps
        from methods.synthesis.patch_contrast import patch_contrast_loss, patch_maps
        from methods.synthesis.priors import one_hot_loss

        teacher = self.batch.teacher
        with AttentionTaps(teacher.model, outputs=True) as taps:
            predictions = teacher.model(view)
        contrasts = [
            patch_contrast_loss(maps, positives=self.config.positives, temperature=self.config.temperature)
            for maps in patch_maps(teacher, taps.outputs)
        ]
        return {
            "patch_contrast": self.config.contrast_weight * torch.stack(contrasts).mean(),
            "one_hot": self.config.one_hot_weight * one_hot_loss(predictions, self.batch.labels),
            "variation": self.variation(view),
        }


class ClampVit(ImageOptimizer):
    """Images from the teacher alone, made once."""

    Config = ClampVitConfig
    Objective = ClampVitObjective


METHOD = Method(
    name="clamp_vit",
    synthesizer=ClampVit,
    engine="psaq_ptq",
    title="CLAMP-style",
    citation="CLAMP-ViT: Contrastive Data-Free Learning for Adaptive Post-Training Quantization of ViTs, "
    "ECCV 2024, arXiv 2407.05266",
    published_name="CLAMP-ViT",
    sources={
        "neighbourhood, positives and number of images": "note",
        "form of the patch contrast": "ours",
        "class and total-variation loss": "ours",
        "optimizer, phases, schedule and views": "ours",
        "quantizer": "ours",
        "sizes other than 224 pixels": "ours",
    },
    deviations=(
        "the layer-wise evolutionary search of scales and bit-widths was never released and is not "
        "implemented: images are made once, from the teacher alone, and a min-max engine calibrates on them",
        "the paper refreshes the images during its search; there is no search, so there is no refresh",
        "the engine is PSAQ-ViT's; the released evaluation quantizes nearly the same tensors with FQ-ViT's "
        "min-max quantizers, in mixed precision",
        "Swin: neighbours are taken on the feature map, its windows put together and the shift undone",
        "a patch in a corner has three neighbours, so all are positives and it adds nothing to the loss",
        *psaq_recipe.DEVIATIONS,
    ),
    not_established=(
        "formula, temperature and features of the contrast: InfoNCE over eight neighbours at temperature "
        "0.1, on attention outputs with the heads joined, mean over layers and patches",
        "output loss: cross-entropy with random labels, coefficient 1 as the contrast's",
        "optimizer, iterations and smoothness term: those of PSAQ-ViT",
        "the quantizer behind the published W4A4, W5A5 and W4A8 rows, which others measured",
    ),
)
