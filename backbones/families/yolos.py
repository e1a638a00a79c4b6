"""YOLOS: a plain ViT with detection tokens, a detector; the model is in `backbones.families.yolos_model`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from backbones.families.family import Architecture, Family

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backbones.families.yolos_model import ExplicitYolos
    from backbones.guidance.guidance import Guidance


class Yolos(Family):
    """CLS, detection tokens and patches attend to each other; every detection token names an object."""

    name = "yolos"
    detects = True
    head_prefixes = ("norm.", "class_head.", "box_head.")

    def build(self, spec: Architecture) -> nn.Module:
        """The project's own model, from modules of timm."""
        from backbones.families.yolos_model import ExplicitYolos

        return ExplicitYolos(
            input_size=spec.data.input_size, num_classes=spec.num_classes, **spec.model_settings
        )

    def guidance(self, num_classes: int) -> Guidance:
        """A set of boxes with classes per image."""
        from backbones.guidance.guidance import SetGuidance

        return SetGuidance(num_classes)

    def quantization_points(self, model: nn.Module) -> list[str]:
        """Embeddings, blocks, positions added between blocks, every layer of the heads."""
        from backbones.families.points import EMBEDDING, block_points, layers_of_heads

        between = [
            name for name, _ in model.named_modules() if name.startswith(("mid_position.", "mid_embedded."))
        ]
        return [*EMBEDDING, *block_points(model), *between, *layers_of_heads(model, self.head_prefixes)]

    def convert_weights(self, state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Weights as transformers stores them, renamed, with COCO's 80 classes alone."""
        from backbones.families.yolos_model import from_transformers

        return from_transformers(state)

    def prefix_tokens(self, model: nn.Module) -> int:
        """CLS and detection tokens."""
        return cast("ExplicitYolos", model).num_prefix_tokens


YOLOS = Yolos()
