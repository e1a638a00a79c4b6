"""Mask R-CNN on a Swin: the detector of the published COCO tables.

The model is in `backbones.families.mask_rcnn_model`, the official names of its weights in `mmdet_keys`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from backbones.families.family import Architecture, Family
from backbones.families.mmdet_keys import from_official, official_file
from backbones.families.swin import SWIN, without_cached_positions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backbones.families.mask_rcnn_model import MaskRcnn
    from backbones.guidance.guidance import Guidance


class MaskRcnnFamily(Family):
    """A Swin feeds a feature pyramid, whose regions get classes, boxes and masks."""

    name = "mask_rcnn"
    detects = True
    windowed = True
    head_prefixes = ("backbone.norms.", "backbone.fpn.", "rpn.", "roi_heads.")

    def build(self, spec: Architecture) -> nn.Module:
        """The project's own model, from modules of timm and torchvision."""
        from backbones.families.mask_rcnn_model import build_mask_rcnn

        return build_mask_rcnn(spec)

    def guidance(self, num_classes: int) -> Guidance:
        """Nothing to show: regions are chosen without gradient."""
        from backbones.guidance.guidance import RegionGuidance

        return RegionGuidance()

    def quantization_points(self, model: nn.Module) -> list[str]:
        """Embedding, blocks and patch merging of the Swin, every layer of neck and heads."""
        from backbones.families.points import WINDOWED_EMBEDDING, block_points, layers_of_heads

        embedding = [f"backbone.body.{point}" for point in WINDOWED_EMBEDDING]
        return [*embedding, *block_points(model), *layers_of_heads(model, self.head_prefixes)]

    def convert_weights(self, state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Weights of the official Swin detection checkpoints (mmdet 2), renamed."""
        ours = model.state_dict()
        if state.keys() == ours.keys():
            return state
        return from_official(without_cached_positions(state), ours)

    def official_weights(self, spec: Architecture) -> str:
        """A checkpoint of the Swin authors' detection repository; no hub has these."""
        return f"{official_file(spec)} of SwinTransformer/Swin-Transformer-Object-Detection"

    def patch_grid(self, model: nn.Module) -> tuple[int, int]:
        """(rows, columns) of the Swin's first stage."""
        return SWIN.patch_grid(cast("MaskRcnn", model).backbone.body)


MASK_RCNN = MaskRcnnFamily()
