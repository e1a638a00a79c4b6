"""D4C for classifiers: a box of each image must look like its class, unlike every background of the batch.

CVPR 2026 Findings, arXiv 2511.15411; follows the released code (Keio-CSG/D4C), which makes images for CLIP.
The classifier's weights stand for CLIP's texts here, so that no knowledge comes in from outside. There is no
published number on classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from methods.base import Method
from methods.settings import setting
from methods.synthesis.loop import Batch, ImageOptimizer, Objective

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class D4cConfig:
    """Defaults are the released code's."""

    images: int = setting(128, "Number of images.", low=1, high=10_000, smoke=4, tunable=False)
    batch_size: int = setting(
        16, "Images optimised together, each against the backgrounds of all.", low=1, high=256, smoke=4
    )
    iterations: int = setting(3000, "Optimisation steps of a batch.", low=1, high=10_000, fast=150, smoke=4)
    learning_rate: float = setting(0.01, "Adam's learning rate.", low=1e-3, high=1.0, log=True)
    temperature: float = setting(0.1, "Temperature of the cosines.", low=0.01, high=1.0, log=True)
    variation_weight: float = setting(0.1, "Weight of the squared variation.", low=0.0, high=10.0)
    contrast: bool = setting(
        True, "Boxes against backgrounds; without, whole images and no backgrounds.", choices=(True, False)
    )
    augment: bool = setting(True, "Augment what must look like the class.", choices=(True, False))


class D4cObjective(Objective):
    """Cross-entropy over classes and backgrounds of the box's features + squared variation."""

    def __init__(self, config: Any, batch: Batch) -> None:
        import torch.nn.functional as F

        from methods.synthesis.boxes import Boxes

        super().__init__(config, batch)
        self._boxes = Boxes.draw(len(batch.labels), batch.labels.device, generator=batch.generator)
        model: Any = batch.teacher.model
        self._classes = F.normalize(model.get_classifier().weight.detach(), dim=-1)

    def losses(self, images: Tensor, view: Tensor, iteration: int) -> Mapping[str, Tensor]:
        """Both terms, weighted."""
        from methods.synthesis.boxes import augmented

        config, generator = self.config, self.batch.generator
        foreground = self._boxes.foreground(images) if config.contrast else images
        if config.augment:
            foreground = augmented(foreground, generator=generator)
        background = None
        if config.contrast:
            background = self._features(self._boxes.background(images, generator=generator))
        contrast = contrastive_loss(
            self._features(foreground), self._classes, background, self.targets, config.temperature
        )
        return {"contrast": contrast, "variation": config.variation_weight * squared_variation(images)}

    def learning_rate(self, iteration: int) -> float:
        """Constant."""
        rate: float = self.config.learning_rate
        return rate

    def _features(self, images: Tensor) -> Tensor:
        """Pooled features before the classifier, of length 1."""
        import torch.nn.functional as F

        model: Any = self.batch.teacher.model
        return F.normalize(model.forward_head(model.forward_features(images), pre_logits=True), dim=-1)


def contrastive_loss(
    features: Tensor, classes: Tensor, backgrounds: Tensor | None, labels: Tensor, temperature: float
) -> Tensor:
    """Cross-entropy of cosines over temperature; backgrounds (B, d) are further wrong classes of every image.

    Features (B, d), classes (C, d) and backgrounds have length 1; labels (B,) name classes.
    """
    import torch
    import torch.nn.functional as F

    others = classes if backgrounds is None else torch.cat([classes, backgrounds])
    return F.cross_entropy(features @ others.T / temperature, labels)


def squared_variation(images: Tensor) -> Tensor:
    """Mean squared difference of horizontal neighbours + the same of vertical ones."""
    across = (images[..., 1:] - images[..., :-1]).square().mean()
    return across + (images[..., 1:, :] - images[..., :-1, :]).square().mean()


class D4c(ImageOptimizer):
    """128 images in batches of 16."""

    Config = D4cConfig
    Objective = D4cObjective


METHOD = Method(
    name="d4c",
    synthesizer=D4c,
    engine="block_reconstruction",
    title="D4C for classifiers",
    citation="D4C, CVPR 2026 Findings, arXiv 2511.15411",
    sources={
        "boxes, backgrounds and contrast": "code",
        "augmentation": "code",
        "optimizer, rate and number of images": "code",
        "classifier weights in place of CLIP's texts": "ours",
        "quantizer": "ours",
    },
    deviations=(
        "row c of the classifier's weights, of length 1 and without its bias, stands for the text of class "
        "c, and the pooled features before the classifier for the image's embedding",
        "images are made for all classes of the classifier; the code has 180 prompts of everyday things",
        "every batch has an Adam of its own; in the code one Adam moves all 128 images at each batch's step",
        "images are clamped to the range of pixels; the code never clamps",
        "the released quantizer is of the QDrop kind; block_reconstruction is the nearest here",
    ),
    not_established=(
        "what is published about classifiers such as DeiT: nothing, so that no row has a published value",
        "the grey of the saturation's change: the mean of the channels",
        "the paper's temperature, rate and iterations: the code's",
        "detectors: not supported",
    ),
)
