"""Names of a Mask R-CNN's weights in the official Swin detection checkpoints (mmdet 2), and the way to ours.

Only names differ. Both merge 2 x 2 patches column by column, number classes from 0 with the background last,
and flatten regions channel by channel; the tests compute with the official conventions to hold this. The
names are those of its public source; no official file has been loaded. Knows nothing about files.

    backbone.patch_embed, backbone.layers.N        our backbone.body (downsampling belongs to stage N + 1)
    backbone.norm0 ... norm3                       backbone.norms
    neck.lateral_convs, neck.fpn_convs             backbone.fpn
    rpn_head                                       rpn.head
    roi_head.bbox_head, roi_head.mask_head         roi_heads
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from backbones.families.family import Architecture

if TYPE_CHECKING:
    from torch import Tensor

_OFFICIAL = tuple(
    (re.compile(ours), official)
    for ours, official in (
        (r"^backbone\.body\.layers\.1\.downsample", "backbone.layers.0.downsample"),
        (r"^backbone\.body\.layers\.2\.downsample", "backbone.layers.1.downsample"),
        (r"^backbone\.body\.layers\.3\.downsample", "backbone.layers.2.downsample"),
        (r"^backbone\.body\.", "backbone."),
        (r"^backbone\.norms\.", "backbone.norm"),
        (r"^backbone\.fpn\.inner_blocks\.(\d)\.0\.", r"neck.lateral_convs.\1.conv."),
        (r"^backbone\.fpn\.layer_blocks\.(\d)\.0\.", r"neck.fpn_convs.\1.conv."),
        (r"^rpn\.head\.conv\.0\.0\.", "rpn_head.rpn_conv."),
        (r"^rpn\.head\.cls_logits\.", "rpn_head.rpn_cls."),
        (r"^rpn\.head\.bbox_pred\.", "rpn_head.rpn_reg."),
        (r"^roi_heads\.box_head\.fc6\.", "roi_head.bbox_head.shared_fcs.0."),
        (r"^roi_heads\.box_head\.fc7\.", "roi_head.bbox_head.shared_fcs.1."),
        (r"^roi_heads\.class_logits\.", "roi_head.bbox_head.fc_cls."),
        (r"^roi_heads\.box_deltas\.", "roi_head.bbox_head.fc_reg."),
        (r"^roi_heads\.mask_head\.(\d)\.0\.", r"roi_head.mask_head.convs.\1.conv."),
        (r"^roi_heads\.mask_predictor\.conv5_mask\.", "roi_head.mask_head.upsample."),
        (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "roi_head.mask_head.conv_logits."),
    )
)
_MOST_NAMES = 5
"""How many keys an error lists."""


def official_file(spec: Architecture) -> str:
    """Name of the official checkpoint of a specification of family `mask_rcnn`."""
    return f"mask_rcnn_{spec.timm_name.removesuffix('_224')}.pth"


def official_name(key: str) -> str:
    """The official name of one of our weights. Raises KeyError where there is none."""
    for ours, official in _OFFICIAL:
        name, found = ours.subn(official, key)
        if found:
            return name
    raise KeyError(key)


def from_official(state: dict[str, Tensor], keys: Iterable[str]) -> dict[str, Tensor]:
    """An official state under our `keys`; buffers that only cache positions must be gone from it.

    Raises ValueError naming the weights that are missing or that have no place, by their official names.
    """
    names = {key: official_name(key) for key in keys}
    faults = [
        f"{what} {_listed(found)}"
        for what, found in (
            ("without", sorted(set(names.values()) - set(state))),
            ("unknown", sorted(set(state) - set(names.values()))),
        )
        if found
    ]
    if faults:
        raise ValueError("official Swin detection weights are needed; found " + "; ".join(faults))
    return {key: state[name] for key, name in names.items()}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
