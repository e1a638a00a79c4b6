"""ViT and DeiT: timm's VisionTransformer with one CLS token, a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from backbones.families.family import Architecture, Family

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    from backbones.guidance.guidance import Guidance


class Vit(Family):
    """A CLS token and all patches attend to each other; the CLS token is classified."""

    name = "vit"
    head_prefixes = ("fc_norm.", "head.")

    def build(self, spec: Architecture) -> nn.Module:
        """timm's model, explicit."""
        import timm

        from backbones.families.explicit import make_explicit

        return make_explicit(timm.create_model(spec.timm_name, pretrained=False, **spec.model_settings))

    def guidance(self, num_classes: int) -> Guidance:
        """A class per image."""
        from backbones.guidance.guidance import ClassGuidance

        return ClassGuidance(num_classes)

    def quantization_points(self, model: nn.Module) -> list[str]:
        """Embeddings, blocks, the CLS token behind the last norm, logits."""
        from backbones.families.points import EMBEDDING, block_points

        # The code quantizes the CLS token alone after the last norm; fc_norm is the first that sees only it.
        return [*EMBEDDING, *block_points(model), "fc_norm", "head"]

    def prefix_tokens(self, model: nn.Module) -> int:
        """The CLS token: 1."""
        return cast("VisionTransformer", model).num_prefix_tokens


VIT = Vit()
