"""Where PSAQ-ViT's code quantizes inside explicit models: the parts that several families share."""

from __future__ import annotations

from torch import nn

from backbones.families.explicit import ExplicitBlock, ExplicitSwinBlock

EMBEDDING = ("patch_embed", "tokens", "position", "embedded")
"""From the patches to the first block's input, in models with a CLS token."""
WINDOWED_EMBEDDING = ("patch_embed.proj", "patch_embed")
"""In Swin the convolution's output is quantized before patch_embed's norm, and patch_embed's after it."""
_BEFORE_SOFTMAX = ("norm1", "attn.qkv", "attn.logits")
_POSITION_BIAS = ("attn.bias", "attn.biased")
_BEHIND_SOFTMAX = ("attn.av", "attn.proj", "residual1", "norm2", "mlp.act", "mlp.fc2", "residual2")


def block_points(model: nn.Module) -> list[str]:
    """Names of the points inside all transformer blocks and Swin's patch merging, in forward order."""
    points: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, ExplicitBlock):
            points += [f"{name}.{point}" for point in (*_BEFORE_SOFTMAX, *_BEHIND_SOFTMAX)]
        elif isinstance(module, ExplicitSwinBlock):
            inside = (*_BEFORE_SOFTMAX, *_POSITION_BIAS, *_BEHIND_SOFTMAX)
            points += [f"{name}.{point}" for point in inside]
        elif name.endswith("downsample") and hasattr(module, "reduction"):
            points += [f"{name}.norm", f"{name}.reduction"]
    return points


def layers_of_heads(model: nn.Module, prefixes: tuple[str, ...]) -> list[str]:
    """Names of the norms, linear layers and convolutions of modules whose names begin so."""
    kinds = nn.LayerNorm | nn.Linear | nn.Conv2d
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, kinds) and f"{name}.".startswith(prefixes)
    ]
