"""What a backbone is: its specification, its preprocessing and the loaded teacher.

Knows nothing about methods, tasks or how weights are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import torch
    from torch import nn

    from backbones.guidance.guidance import Guidance

Family = Literal["vit", "swin", "yolos", "mask_rcnn"]
"""`vit` and `swin` classify; `yolos` (a ViT with detection tokens) and `mask_rcnn` (on a Swin) detect."""
FAMILIES: frozenset[Family] = frozenset(get_args(Family))
DETECTORS: frozenset[Family] = frozenset({"yolos", "mask_rcnn"})
_HEADS: dict[Family, tuple[str, ...]] = {
    "vit": ("fc_norm.", "head."),
    "swin": ("head.",),
    "yolos": ("norm.", "class_head.", "box_head."),
    "mask_rcnn": ("backbone.norms.", "backbone.fpn.", "rpn.", "roi_heads."),
}
"""How the names of modules begin that belong to neck and heads, or whose output only these read."""


@dataclass(frozen=True)
class DataConfig:
    """How an image becomes a model's input; the evaluation transform and the synthesis clamp read it."""

    input_size: tuple[int, int, int]
    """(channels, height, width) in pixels."""
    mean: tuple[float, ...]
    """Per channel, in the [0, 1] pixel scale."""
    std: tuple[float, ...]
    """Per channel, in the [0, 1] pixel scale."""
    crop_pct: float = 1.0
    """Side of the centre crop over the shorter side of the resized image."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Interpolation of the resize."""
    shorter_side: int = 0
    """Detectors: the shorter side is resized to so many pixels, unless the longer one would then exceed
    `longer_side`; 0 for classifiers, which crop."""
    longer_side: int = 0
    """Detectors: the most pixels that the longer side may have."""
    pad_multiple: int = 1
    """Detectors: the resized image is padded, right and below, until both sides are multiples of this."""


@dataclass(frozen=True)
class BackboneSpec:
    """Facts about one backbone, known before any weight is loaded."""

    name: str
    """The name users type, such as `deit_tiny`."""
    family: Family
    """Decides which attention taps exist and which priors apply."""
    published_name: str
    """The name that papers' tables use, such as `DeiT-T`."""
    timm_name: str
    """timm architecture with its pinned weight tag, such as `deit_tiny_patch16_224.fb_in1k`; empty where the
    project builds the model itself (YOLOS)."""
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
    def prefix_tokens(self) -> int:
        """Tokens before the patch tokens: 1 (CLS) for ViT and DeiT, CLS and detection tokens for YOLOS, 0
        for Swin."""
        return 0 if self.is_windowed else int(getattr(self.model, "num_prefix_tokens", 0))

    @property
    def is_windowed(self) -> bool:
        """Whether attention stays within windows: Swin, also as the backbone of a detector."""
        return self.spec.family in ("swin", "mask_rcnn")

    def is_of_heads(self, module: str) -> bool:
        """Whether the module of that name belongs to neck and heads, or hands its output to these alone."""
        return f"{module}.".startswith(_HEADS[self.spec.family])

    @property
    def guidance(self) -> Guidance:
        """Targets for images, and losses on what the model says of them."""
        from backbones.guidance.guidance import guidance_of

        return guidance_of(self)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """(rows, columns) of the patches that an image of `data.input_size` is cut into; in Swin those of the
        first stage."""
        model: Any = self.model
        body = model.backbone.body if self.spec.family == "mask_rcnn" else model
        rows, columns = body.patch_embed.grid_size
        return rows, columns

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.model.parameters()).device

    def pixel_range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Lowest and highest valid value per channel in normalized space, each of shape (C, 1, 1)."""
        import torch

        mean = torch.tensor(self.data.mean, device=self.device).view(-1, 1, 1)
        std = torch.tensor(self.data.std, device=self.device).view(-1, 1, 1)
        return (0 - mean) / std, (1 - mean) / std
