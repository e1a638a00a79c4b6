"""SARDFQ: images that attention reads with a given structure, whose parts belong to classes of their own.

ICCV 2025, arXiv 2412.16553 (earlier SPDFQ), from its abstract and others' notes; the code could not be read.
APA gives every head of the deeper layers a random mixture of Gaussians to follow, MSR optimises crops as
images of their own, SL labels both softly. The recipe around them is PSAQ-ViT's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from methods.base import Method
from methods.settings import setting
from methods.synthesis import psaq_recipe
from methods.synthesis.loop import Batch, ImageOptimizer
from methods.synthesis.psaq_recipe import PsaqRecipe, PsaqRecipeConfig

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_BALANCE = 1e5
_BALANCED_AT = 0.1
"""Share of the iterations after which the weight of the attention prior stays: 100 of the paper's 1000."""


@dataclass(frozen=True)
class SardfqConfig(PsaqRecipeConfig):
    """K_APA, K_MSR, soft labels and depth weights are the paper's, as noted by others; the rest is ours."""

    iterations: int = setting(
        1000, "Optimisation steps of a batch, half in each phase.", low=2, high=4000, fast=150, smoke=4
    )
    prior_weight: float = setting(
        1.0,
        "Weight of the attention prior, in units of what balances it with the class loss; 0 turns it off.",
        low=0.0,
        high=10.0,
    )
    components: int = setting(5, "Most Gaussians in a head's mixture.", low=1, high=20)
    crops: int = setting(4, "Most crops that are optimised as images of their own; 0: none.", low=0, high=4)


class SardfqObjective(PsaqRecipe):
    """Attention prior + soft class loss, on images and crops, + |total variation - tau| of the images."""

    def __init__(self, config: Any, batch: Batch) -> None:
        import torch

        from methods.synthesis.crops import draw_crops
        from methods.synthesis.soft_labels import soft_labels

        super().__init__(config, batch)
        teacher, device, images = batch.teacher, batch.teacher.device, len(batch.labels)
        _, height, width = teacher.data.input_size
        crops = draw_crops(images, height, width, most=config.crops, generator=batch.generator)
        classes = torch.randint(teacher.num_classes, crops.owner.shape, generator=batch.generator)
        wanted = wanted_classes(batch.labels.cpu(), crops.owner, classes, teacher.num_classes)
        self._targets = soft_labels(wanted, generator=batch.generator).to(device)
        self._crops = crops.to(device)
        self._mixtures = self._draw_mixtures(len(wanted)) if config.prior_weight > 0 else []
        self._balance = torch.ones((), device=device)

    def view(self, images: Tensor, iteration: int) -> Tensor:
        """The images, then their crops, all shifted and mirrored as PSAQ-ViT does it."""
        import torch

        from methods.synthesis.crops import enlarged

        return super().view(torch.cat([images, enlarged(images, self._crops)]), iteration)

    def losses(self, images: Tensor, view: Tensor, iteration: int) -> Mapping[str, Tensor]:
        """The terms that are on, weighted."""
        import torch.nn.functional as F

        from backbones.families.explicit import AttentionTaps

        with AttentionTaps(self.batch.teacher.model, maps=bool(self._mixtures)) as taps:
            predictions = self.batch.teacher.model(view)
        soft = self.config.one_hot_weight * F.cross_entropy(predictions, self._targets)
        losses = {"soft_label": soft, "variation": self.variation(view[: len(images)])}
        if self._mixtures:
            prior = self._attention_prior(taps.maps)
            if iteration <= _BALANCED_AT * self.config.iterations:
                ratio = soft.detach() / prior.detach().clamp(min=1e-12)
                self._balance = ratio.clamp(1.0, _LARGEST_BALANCE)
            losses["attention_prior"] = self.config.prior_weight * self._balance * prior
        return losses

    def _draw_mixtures(self, count: int) -> list[Tensor]:
        """(count, H, n) for every layer of the deeper half, drawn once; windows of a Swin image share it."""
        from backbones.families.explicit import attention_modules
        from methods.synthesis.attention_mixtures import random_mixtures

        teacher = self.batch.teacher
        modules = attention_modules(teacher.model)
        return [
            random_mixtures(
                (count, module.num_heads),
                getattr(module, "window_size", teacher.patch_grid),
                components=self.config.components,
                generator=self.batch.generator,
            ).to(teacher.device)
            for module in modules[first_layer(len(modules)) - 1 :]
        ]

    def _attention_prior(self, maps: list[Tensor]) -> Tensor:
        """Sum over the deeper layers and their heads of l / L times the distance to the mixtures."""
        import torch

        from methods.synthesis.attention_mixtures import mixture_loss, received_attention

        prefix, depth = self.batch.teacher.prefix_tokens, len(maps)
        terms = []
        for layer, mixtures in enumerate(self._mixtures, start=first_layer(depth)):
            attention = received_attention(maps[layer - 1], prefix_tokens=prefix)
            windows = len(attention) // len(mixtures)
            heads = attention.shape[1]
            distance = mixture_loss(attention, mixtures.repeat_interleave(windows, dim=0))
            terms.append(heads * layer / depth * distance)
        return torch.stack(terms).sum()


def first_layer(depth: int) -> int:
    """S = L / 2, counted from 1: the first layer whose attention follows a prior."""
    return max(1, depth // 2)


def wanted_classes(labels: Tensor, owner: Tensor, crop_labels: Tensor, num_classes: int) -> Tensor:
    """Which classes each image (B) and then each crop (M) is made for: bool (B + M, num_classes).

    A crop is made for its own class, an image for its own and for those of its crops.
    """
    import torch

    everything = torch.cat([labels, crop_labels])
    wanted = torch.zeros(len(everything), num_classes, dtype=torch.bool)
    wanted[torch.arange(len(everything)), everything] = True
    wanted[owner, crop_labels] = True
    return wanted


class Sardfq(ImageOptimizer):
    """32 images from one batch."""

    Config = SardfqConfig
    Objective = SardfqObjective


METHOD = Method(
    name="sardfq",
    synthesizer=Sardfq,
    engine="block_reconstruction",
    title="SARDFQ",
    citation="Semantic Alignment and Reinforcement for Data-Free Quantization of Vision Transformers, "
    "ICCV 2025, arXiv 2412.16553",
    published_name="SARDFQ",
    sources={
        "attention prior: terms, deeper half, depth weights, number of components": "note",
        "attention prior: law of the mixtures, its weight": "ours",
        "crops: number, own labels": "note",
        "crops: geometry": "ours",
        "soft labels": "note",
        "total-variation loss": "ours",
        "optimizer, phases, schedule and views": "ours",
        "quantizer and calibration": "note",
        "sizes other than 224 pixels": "ours",
    },
    deviations=(
        "the weight of the attention prior is not searched per model: it makes the prior equal to the class "
        "loss at a tenth of the iterations, at most 1e5, and needs no data; until then it follows the ratio",
        "crops lie in a quadrant each, which keeps them apart without rejection",
        "Swin: attention received is the mean over a window's queries; the windows of an image share a "
        "mixture in each head and layer",
        "widths of Gaussians are scaled with the patch grid relative to 14 patches, crops with the image",
        *psaq_recipe.DEVIATIONS,
    ),
    not_established=(
        "law of the mixtures: 1 to 5 isotropic Gaussians with equal probability, centres uniform, widths of "
        "1 to 3 patches, Dirichlet(1) weights, times the mass that attention gives the patches",
        "side of the crops: 80 to 112 pixels of 224; their labels: uniform over the classes",
        "background of the soft labels: standard normal logits",
        "optimizer constants and form of the total-variation loss: PSAQ-ViT's",
        "the weight of the attention prior per model",
        "first and last layers in the quantizer: those of the engine",
    ),
)
