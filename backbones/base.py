"""What a backbone is: its specification and the loaded teacher.

Knows nothing about methods, tasks or how weights are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backbones.families.family import Family
from backbones.families.registry import FAMILIES, get_family
from backbones.preprocessing.data_config import DataConfig
from backbones.preprocessing.pixels import pixel_range

if TYPE_CHECKING:
    import torch
    from torch import nn

    from backbones.guidance.guidance import Guidance

__all__ = ["FAMILIES", "Backbone", "BackboneSpec", "DataConfig"]


@dataclass(frozen=True)
class BackboneSpec:
    """Facts about one backbone, known before any weight is loaded."""

    name: str
    """The name users type, such as `deit_tiny`."""
    family: str
    """Name of the model family (`backbones.families.registry`), which builds the model."""
    published_name: str
    """The name that papers' tables use, such as `DeiT-T`."""
    timm_name: str
    """timm architecture with its pinned weight tag, such as `deit_tiny_patch16_224.fb_in1k`; empty where the
    family builds the model itself (YOLOS)."""
    data: DataConfig
    """Preprocessing used for evaluation and for the clamp of synthetic images."""
    num_classes: int
    """Number of classes of the head."""
    dataset: str
    """Name of the data set the weights were trained on: `imagenet`, `digits`, `coco` or `digits_scenes`."""
    reference_score: float | None = None
    """What the pinned weights reach on the whole validation set with this transform, in percent: top-1 of
    a classifier, box AP of a detector."""
    reference_source: str = ""
    """Where `reference_score` was read."""
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for timm's constructor, for the tiny models, or for the project's own."""
    hub_repository: str = ""
    """Repository of the Hugging Face hub with the weights in `model.safetensors`; empty when none has."""
    shipped_weights: str | None = None
    """File name under `backbones/digits/weights/`, for models whose weights the project ships."""

    @property
    def is_detector(self) -> bool:
        """Whether the outputs are boxes rather than logits of classes."""
        return get_family(self.family).detects


@dataclass(frozen=True)
class Backbone:
    """A loaded, frozen teacher in evaluation mode, its attention explicit (`backbones.families.explicit`)."""

    spec: BackboneSpec
    model: nn.Module
    weights_sha256: str

    @property
    def data(self) -> DataConfig:
        """Preprocessing facts of the model."""
        return self.spec.data

    @property
    def num_classes(self) -> int:
        """Number of classes; a detector's logits say 'no object' on top."""
        return self.spec.num_classes

    @property
    def family(self) -> Family:
        """The family that built the model, with everything particular to its architecture."""
        return get_family(self.spec.family)

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patch tokens: 1 (CLS) for ViT and DeiT, CLS and detection tokens for YOLOS, 0
        for Swin."""
        return self.family.prefix_tokens(self.model)

    @property
    def is_windowed(self) -> bool:
        """Whether attention stays within windows: Swin, also as the backbone of a detector."""
        return self.family.windowed

    def is_of_heads(self, module: str) -> bool:
        """Whether the module of that name belongs to neck and heads, or hands its output to these alone."""
        return f"{module}.".startswith(self.family.head_prefixes)

    def quantization_points(self) -> list[str]:
        """Names of the modules whose output PSAQ-ViT's code quantizes; the input image comes on top."""
        return self.family.quantization_points(self.model)

    @property
    def guidance(self) -> Guidance:
        """Targets for images, and losses on what the model says of them."""
        return self.family.guidance(self.num_classes)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """(rows, columns) of the patches that an image of `data.input_size` is cut into; in Swin those of the
        first stage."""
        return self.family.patch_grid(self.model)

    @property
    def device(self) -> torch.device:
        """Device on which the model's parameters lie."""
        return next(self.model.parameters()).device

    def pixel_range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Lowest and highest valid value per channel in normalized space, each of shape (C, 1, 1)."""
        return pixel_range(self.data, self.device)
