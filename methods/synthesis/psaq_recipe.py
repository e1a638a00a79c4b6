"""The recipe around PSAQ-ViT's prior, which later methods kept: views, optimizer, rates, total variation.

A subclass of `PsaqRecipe` adds the loss terms of its method; everything here is read in the released code of
PSAQ-ViT (Li et al., ECCV 2022, arXiv 2203.02250).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from methods.settings import setting
from methods.synthesis.loop import Batch, Objective, cosine

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

_REFERENCE_NUMBERS = 32 * 3 * 224 * 224
"""Numbers in the batch for which the paper's range of total variation was chosen."""

DEVIATIONS = (
    "tau, the wanted total variation, is scaled by sqrt(numbers in the batch / (32*3*224*224)): norms "
    "grow with the batch and the image; equal to the code at its own sizes",
    "the clamp uses the model's own mean and std; the code uses ImageNet's for every model",
    "shift limits are scaled with the image's side relative to 224 pixels",
)
"""What every method with this recipe does unlike the code."""


@dataclass(frozen=True)
class PsaqRecipeConfig:
    """Defaults are the released code's."""

    images: int = setting(32, "Number of images.", low=1, high=1024, smoke=4, tunable=False)
    batch_size: int = setting(32, "Images optimised together.", low=1, high=256, smoke=4, tunable=False)
    iterations: int = setting(
        1000, "Optimisation steps of a batch, as many in each phase.", low=2, high=4000, fast=300, smoke=4
    )
    learning_rate: float = setting(0.20, "Adam's learning rate.", low=0.02, high=1.0, log=True)
    swin_rate_factor: float = setting(
        1.25, "Times the learning rate for Swin: 0.25.", low=0.1, high=10.0, tunable=False
    )
    one_hot_weight: float = setting(
        1.0, "Weight of the class loss, on a detector of the guidance's.", low=0.0, high=10.0
    )
    variation_weight: float = setting(
        0.05, "Weight of the distance to the total variation.", low=0.0, high=1.0
    )


class PsaqRecipe(Objective):
    """Everything but the loss on what the teacher sees."""

    jitter: ClassVar[tuple[int, ...]] = (15, 30)
    """Shift limit of each phase, in pixels of 224; the phases share the iterations equally."""

    def __init__(self, config: Any, batch: Batch) -> None:
        import torch

        super().__init__(config, batch)
        numbers = len(batch.labels) * math.prod(batch.teacher.data.input_size)
        drawn = float(torch.empty(()).uniform_(2500, 3000, generator=batch.generator))
        self._wanted_variation = drawn * math.sqrt(numbers / _REFERENCE_NUMBERS)
        factor = config.swin_rate_factor if batch.teacher.is_windowed else 1.0
        self._base_rate: float = config.learning_rate * factor
        self.phase = math.ceil(config.iterations / len(self.jitter))
        """Iterations in one phase."""

    def view(self, images: Tensor, iteration: int) -> Tensor:
        """Rolled by the same offset in both axes, up to the phase's limit; perhaps mirrored."""
        from methods.synthesis.augmentations import jitter_limit, random_placement

        limit = jitter_limit(self.jitter[iteration // self.phase], images)
        return self.placed(images, random_placement(limit, generator=self.batch.generator, same_offset=True))

    def variation(self, view: Tensor) -> Tensor:
        """| R(view) - tau |, weighted; tau is drawn once per batch."""
        from methods.synthesis.priors import total_variation

        distance = (total_variation(view) - self._wanted_variation).abs()
        weighted: Tensor = self.config.variation_weight * distance
        return weighted

    def optimizer(self, images: Tensor) -> Optimizer:
        """Adam with the code's momentum."""
        import torch

        return torch.optim.Adam([images], lr=self._base_rate, betas=(0.5, 0.9), fused=True)

    def learning_rate(self, iteration: int) -> float:
        """In each phase: linear warm-up over its first fifth, then a cosine to 0."""
        step = iteration % self.phase
        warm_up = self.phase // 5
        if step < warm_up:
            rate: float = self._base_rate * (step + 1) / warm_up
            return rate
        return cosine(self._base_rate, 0.0, (step - warm_up) / (self.phase - warm_up))
