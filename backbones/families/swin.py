"""Swin: timm's SwinTransformer, a classifier whose attention stays within windows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from backbones.families.family import Architecture, Family

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backbones.guidance.guidance import Guidance

_CACHED_POSITIONS = ("relative_position_index", "attn_mask")
"""Buffers of the authors' files that follow from the sizes and are not weights."""


class Swin(Family):
    """Windows of patches attend within themselves; four stages halve the map."""

    name = "swin"
    windowed = True
    head_prefixes = ("head.",)

    def build(self, spec: Architecture) -> nn.Module:
        """timm's model, explicit, without stochastic depth."""
        import timm

        from backbones.families.explicit import make_explicit

        settings = {**spec.model_settings, "drop_path_rate": 0.0}
        return make_explicit(timm.create_model(spec.timm_name, pretrained=False, **settings))

    def guidance(self, num_classes: int) -> Guidance:
        """A class per image."""
        from backbones.guidance.guidance import ClassGuidance

        return ClassGuidance(num_classes)

    def quantization_points(self, model: nn.Module) -> list[str]:
        """Embedding, blocks and patch merging, last norm, pooled features, logits."""
        from backbones.families.points import WINDOWED_EMBEDDING, block_points

        return [*WINDOWED_EMBEDDING, *block_points(model), "norm", "head.global_pool", "head"]

    def convert_weights(self, state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Swin's authors number downsampling one stage earlier than timm and name the head flat."""
        state = without_cached_positions(state)
        if "layers.0.downsample.reduction.weight" not in state:
            return state
        return {
            re.sub(r"layers\.(\d+)\.downsample", _one_stage_later, key).replace("head.", "head.fc."): value
            for key, value in state.items()
        }


def without_cached_positions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a Swin file without the buffers that its authors' code stores."""
    return {key: value for key, value in state.items() if not key.endswith(_CACHED_POSITIONS)}


def _one_stage_later(found: re.Match[str]) -> str:
    return f"layers.{int(found[1]) + 1}.downsample"


SWIN = Swin()
