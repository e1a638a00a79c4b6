"""RepQ-ViT's scale reparameterization: per-channel ranges after a LayerNorm become one range.

Source: Li et al., ICCV 2023 (arXiv 2212.08254), section 3.2 and released code. With scale d_c and zero
point z_c per channel, their means d and z, r_c = d_c / d and b_c = d (z - z_c):

    LayerNorm     gamma <- gamma / r      beta <- beta / r - b
    next layer    W <- W diag(r)          bias <- bias + W_new b

The next layer gives what it gave, and its input, x / r - b, has the same codes with d and z for all
channels. The released code leaves z as it is, in general no integer, so that codes are none either;
rounding it keeps them whole.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from methods.quantization.layers import QuantizedLinear
from methods.quantization.percentile import PercentileQuantizer, PercentileWeights


class NormedLayer(NamedTuple):
    """Names of a LayerNorm and of the one layer that reads its output."""

    norm: str
    layer: str


def normed_layers(model: nn.Module) -> list[NormedLayer]:
    """The pairs inside the blocks and patch mergings of an explicit model, in forward order."""
    from timm.models.swin_transformer import PatchMerging

    from backbones.families.explicit import ExplicitBlock, ExplicitSwinBlock

    pairs = []
    for name, module in model.named_modules():
        if isinstance(module, ExplicitBlock | ExplicitSwinBlock):
            pairs.append(NormedLayer(f"{name}.norm1", f"{name}.attn.qkv"))
            pairs.append(NormedLayer(f"{name}.norm2", f"{name}.mlp.fc1"))
        elif isinstance(module, PatchMerging):
            pairs.append(NormedLayer(f"{name}.norm", f"{name}.reduction"))
    return pairs


@torch.no_grad()
def reparameterize(norm: nn.LayerNorm, layer: QuantizedLinear, *, round_zero_point: bool) -> None:
    """Fold the per-channel ranges of the layer's input into the norm and the layer, in place.

    The layer must have a bias, and a calibrated per-channel input quantizer; its weights' ranges are
    searched anew.
    """
    quantizer, weights = layer.input_quantizer, layer.quantize_weight
    assert isinstance(quantizer, PercentileQuantizer)
    assert isinstance(weights, PercentileWeights)
    assert layer.bias is not None
    scale, zero_point = quantizer.scale.mean(), quantizer.zero_point.mean()
    if round_zero_point:
        zero_point = zero_point.round()
    ratio = quantizer.scale / scale
    shift = scale * (zero_point - quantizer.zero_point)
    norm.weight.div_(ratio)
    norm.bias.div_(ratio).sub_(shift)
    layer.weight.mul_(ratio)
    layer.bias.add_(layer.weight @ shift)
    quantizer.use_one_range(scale, zero_point)
    weights.fit(layer.weight)
