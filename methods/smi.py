"""SMI: inversion that goes on where attention looks and stops elsewhere; dense, it is DeepInversion for ViT.

Hu et al., Sparse Model Inversion, ICML 2024; follows the released code (Egg-Hu/SMI). Four times, 30 % of the
patches left are given up: no gradient reaches their pixels any more, their tokens leave the forward pass, and
the finished images are 0 there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from methods.base import Method
from methods.settings import setting
from methods.synthesis.loop import Batch, ImageOptimizer, Objective

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

_REFERENCE_NUMBERS = 32 * 3 * 224 * 224
"""Numbers in the batch for which the weight of the total variation was chosen."""


@dataclass(frozen=True)
class SmiConfig:
    """Defaults are the released code's."""

    images: int = setting(32, "Number of images.", low=1, high=1024, smoke=4, tunable=False)
    batch_size: int = setting(32, "Images optimised together.", low=1, high=256, smoke=4, tunable=False)
    iterations: int = setting(
        4000, "Optimisation steps of a batch.", low=1, high=10_000, fast=300, smoke=4, tunable=False
    )
    learning_rate: float = setting(0.25, "Adam's learning rate.", low=0.02, high=1.0, log=True)
    one_hot_weight: float = setting(1.0, "Weight of the class loss.", low=0.0, high=10.0)
    variation_weight: float = setting(1e-4, "Weight of the total variation.", low=0.0, high=1e-2)
    prune: bool = setting(
        True, "Give patches up (ViT, DeiT); false is DeepInversion for ViT.", choices=(False, True)
    )
    prune_at: tuple[int, ...] = setting(
        (50, 100, 200, 300),
        "Iterations before which patches are given up.",
        fast=(30, 60, 120, 180),
        smoke=(1, 2),
        tunable=False,
    )
    prune_share: float = setting(0.3, "Share of the patches left that is given up.", low=0.0, high=0.9)


class SmiObjective(Objective):
    """Class loss on the tokens that are left + total variation of the images."""

    config: SmiConfig

    def __init__(self, config: Any, batch: Batch) -> None:
        import torch

        super().__init__(config, batch)
        self.sparse = config.prune and not batch.teacher.is_windowed
        if self.sparse:
            grid = batch.teacher.patch_grid
            self._left = math.prod(grid)
            shape = (len(batch.labels), *grid)
            self._kept = torch.ones(shape, dtype=torch.bool, device=batch.teacher.device)
            self._ranking: Tensor | None = None

    def view(self, images: Tensor, iteration: int) -> Tensor:
        """Rolled by up to an eighth of the side, perhaps mirrored; a last channel is 1 on patches kept.

        As in the code, patches are ranked on the images as they are in the iteration before they are given
        up; both iterations see these images unmoved.
        """
        import torch

        from methods.synthesis.augmentations import random_flip, random_roll

        unmoved = False
        if self.sparse:
            gives_up, ranks = (i in self.config.prune_at for i in (iteration, iteration + 1))
            unmoved = gives_up or ranks
            if gives_up:
                self._give_up_patches(images)
            if ranks:
                self._ranking = self._attention(images)
            kept = self._kept_pixels(images)
            # Where a patch was given up, no gradient reaches the image any more.
            images = torch.cat([torch.where(kept, images, images.detach()), kept.to(images.dtype)], dim=1)
        if unmoved:
            return images
        limit = min(images.shape[-2:]) // 8
        rolled = random_roll(images, limit, generator=self.batch.generator)
        return random_flip(rolled, generator=self.batch.generator)

    def losses(self, images: Tensor, view: Tensor, iteration: int) -> Mapping[str, Tensor]:
        """The two terms, weighted."""
        import torch

        from methods.synthesis.priors import one_hot_loss, total_variation

        model = self.batch.teacher.model
        if self.sparse:
            view, marks = view[:, :-1], view[:, -1]
            height, width = self._patch_size()
            # A patch of the view is the one that its centre shows, as the shift rounds to whole patches.
            tokens = marks[:, (height - 1) // 2 :: height, (width - 1) // 2 :: width] > 0
            with only_tokens(model, tokens, self._left):
                predictions = model(view)
            kept = self._kept_pixels(images)
            images = torch.where(kept, images, images.detach())
        else:
            predictions = model(view)
        scale = math.sqrt(_REFERENCE_NUMBERS / images.numel())
        return {
            "one_hot": self.config.one_hot_weight * one_hot_loss(predictions, self.batch.labels),
            "variation": self.config.variation_weight * scale * total_variation(images),
        }

    def finished(self, images: Tensor) -> Tensor:
        """0, the mean colour, where patches were given up."""
        return images * self._kept_pixels(images) if self.sparse else images

    def optimizer(self, images: Tensor) -> Optimizer:
        """Adam with the code's momentum."""
        import torch

        return torch.optim.Adam([images], lr=self.config.learning_rate, betas=(0.5, 0.99), fused=True)

    def learning_rate(self, iteration: int) -> float:
        """Constant."""
        rate: float = self.config.learning_rate
        return rate

    def _give_up_patches(self, images: Tensor) -> None:
        """Keep the patches that CLS attended to most; before the first iteration they are ranked now."""
        import torch

        attention = self._attention(images) if self._ranking is None else self._ranking
        self._ranking = None
        self._left = max(1, int(self._left * (1 - self.config.prune_share)))
        best = attention.topk(self._left, dim=1).indices
        places = token_places(self._kept, attention.shape[1]).gather(1, best)
        kept = torch.zeros_like(self._kept.flatten(1)).scatter_(1, places, True)
        self._kept = kept.view_as(self._kept)

    def _attention(self, images: Tensor) -> Tensor:
        """What CLS pays to every patch that is left, in the last layer, mean over heads: (B, patches)."""
        import torch

        from backbones.families.explicit import AttentionTaps

        model = self.batch.teacher.model
        with (
            torch.no_grad(),
            AttentionTaps(model, maps=True) as taps,
            only_tokens(model, self._kept, self._left),
        ):
            model(images)
        return taps.maps[-1].mean(dim=1)[:, 0, 1:]

    def _kept_pixels(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) bool."""
        height, width = self._patch_size()
        pixels = self._kept.repeat_interleave(height, dim=1).repeat_interleave(width, dim=2)
        return pixels.unsqueeze(1)

    def _patch_size(self) -> tuple[int, int]:
        (rows, columns), (_, height, width) = (
            self.batch.teacher.patch_grid,
            self.batch.teacher.data.input_size,
        )
        return height // rows, width // columns


def token_places(kept: Tensor, count: int) -> Tensor:
    """Row-major places of the `count` patches that are True in every (h, w) of `kept`: (B, count) int64."""
    return kept.flatten(1).int().argsort(dim=1, descending=True, stable=True)[:, :count]


@contextmanager
def only_tokens(model: nn.Module, kept: Tensor, count: int) -> Iterator[None]:
    """Let only CLS and the `count` patches of every image that `kept` (B, h, w) marks into the ViT's blocks.

    They keep their position embeddings: the others leave after these are added.
    """
    import torch

    places = token_places(kept, count) + 1
    chosen = torch.cat([torch.zeros_like(places[:, :1]), places], dim=1).unsqueeze(-1)

    def drop(module: nn.Module, inputs: Any, tokens: Tensor) -> Tensor:
        return tokens.gather(1, chosen.expand(-1, -1, tokens.shape[-1]))

    hook = model.get_submodule("patch_drop").register_forward_hook(drop)
    try:
        yield
    finally:
        hook.remove()


class Smi(ImageOptimizer):
    """32 images from one batch."""

    Config = SmiConfig
    Objective = SmiObjective


METHOD = Method(
    name="smi",
    synthesizer=Smi,
    engine="psaq_ptq",
    title="SMI",
    citation="Sparse Model Inversion: Efficient Inversion of Vision Transformers for Data-Free Applications, "
    "ICML 2024",
    published_elsewhere={"block_reconstruction": "SMI (SARDFQ quantizer)"},
    sources={
        "class and total-variation loss": "code",
        "optimizer and views": "code",
        "giving patches up": "code",
        "quantizer": "code",
        "Swin": "ours",
        "sizes other than 224 pixels": "ours",
    },
    deviations=(
        "calibration sees whole images, 0 where patches were given up; the code feeds the engine only the "
        "tokens of patches that were kept",
        "the finished images are 0 where patches were given up; the code chooses these patches anew, from "
        "attention on the finished whole image",
        "the weight of the total variation is scaled by sqrt(32*3*224*224 / numbers in the batch): norms "
        "grow with the batch and the image; equal to the code at its own sizes",
        "patches that were given up are smoothed no more; in the code their total variation goes on",
        "Swin is inverted densely: windows cannot lose tokens one by one",
        "the last iterate is kept, as in effect in the code, whose best input is the live tensor",
    ),
    not_established=("how others made the SMI images of the published Swin rows: densely",),
)
