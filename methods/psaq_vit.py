"""PSAQ-ViT: images whose patches are as diverse to self-attention as those of a photograph are.

Li et al., ECCV 2022, arXiv 2203.02250; follows the released code (zkkli/PSAQ-ViT).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backbones.base import FAMILIES
from methods.base import Method
from methods.settings import setting
from methods.synthesis import psaq_recipe
from methods.synthesis.loop import Batch, ImageOptimizer
from methods.synthesis.psaq_recipe import PsaqRecipe, PsaqRecipeConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PsaqVitConfig(PsaqRecipeConfig):
    """Defaults are the released code's."""

    entropy_weight: float = setting(1.0, "Weight of the patch-similarity entropy.", low=0.0, high=10.0)
    kde_points: int = setting(10, "Grid points of the kernel density.", low=2, high=1000, tunable=False)
    bandwidth: float = setting(0.01, "Bandwidth of the kernel density.", low=1e-4, high=1.0, log=True)
    faithful_swin_drop: bool = setting(
        False,
        "Leave out the first token of every Swin window, as the code does.",
        choices=(False, True),
        tunable=False,
    )


class PsaqVitObjective(PsaqRecipe):
    """- sum over layers of the patch-similarity entropy + class loss + |total variation - tau|."""

    def __init__(self, config: Any, batch: Batch) -> None:
        super().__init__(config, batch)
        drops_patch = batch.teacher.is_windowed and config.faithful_swin_drop
        self._skip_tokens = 1 if drops_patch else batch.teacher.prefix_tokens

    def losses(self, images: Tensor, view: Tensor, iteration: int) -> Mapping[str, Tensor]:
        """The three terms, weighted."""
        outputs, entropy = self.seen(view)
        wanted = self.batch.teacher.guidance.loss(outputs, self.targets)
        return {
            "patch_entropy": entropy,
            "one_hot": self.config.one_hot_weight * wanted,
            "variation": self.variation(view),
        }

    def seen(self, view: Tensor) -> tuple[Any, Tensor]:
        """The teacher's outputs, and the weighted loss on the entropy of its patches."""
        import torch

        from backbones.families.explicit import AttentionTaps
        from methods.synthesis.patch_similarity import patch_similarity_entropy

        with AttentionTaps(self.batch.teacher.model, outputs=True) as taps:
            outputs = self.batch.teacher.model(view)
        entropies = [
            patch_similarity_entropy(
                layer,
                len(view),
                skip_tokens=self._skip_tokens,
                points=self.config.kde_points,
                bandwidth=self.config.bandwidth,
            )
            for layer in taps.outputs
        ]
        return outputs, -self.config.entropy_weight * torch.stack(entropies).sum()


class PsaqVit(ImageOptimizer):
    """32 images from one batch."""

    families = FAMILIES
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
        "guidance on detectors": "ours",
    },
    deviations=(
        *psaq_recipe.DEVIATIONS,
        "token 0 is left out for models with a CLS token only; the code also drops a real patch of every "
        "Swin window (faithful_swin_drop)",
        "the kernel density leaves out kernel values below 1e-10 of the peak",
    ),
    not_established=(
        "ViT-S and ViT-B are absent from the released models: same recipe, the model's own mean and std",
        "settings of the percentile and OMSE observers of the paper: min-max, as released",
    ),
)
