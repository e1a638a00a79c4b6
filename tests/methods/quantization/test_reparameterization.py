"""Scale reparameterization: what the network computes stays, and per-channel codes stay too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.quantization.fitting import fitting
from methods.quantization.layers import QuantizedLinear
from methods.quantization.percentile import PercentileQuantizer, PercentileWeights, quantize_uniform
from methods.quantization.reparameterization import normed_layers, reparameterize
from methods.testing.models import tiny


def pair(channels: int = 6) -> tuple[nn.LayerNorm, QuantizedLinear, torch.Tensor]:
    """A norm with very unequal channels, among them a constant and a zero one, and the layer behind it."""
    generator = torch.Generator().manual_seed(0)
    norm = nn.LayerNorm(channels).requires_grad_(False)
    norm.weight.copy_(torch.tensor([1.0, 20.0, 0.05, 3.0, 0.0, 0.0]))
    norm.bias.copy_(torch.tensor([0.0, 7.0, -0.01, -40.0, 0.6, 0.0]))
    linear = nn.Linear(channels, 4).requires_grad_(False)
    linear.weight.copy_(torch.randn(4, channels, generator=generator))
    linear.bias.copy_(torch.randn(4, generator=generator))
    quantizer = PercentileQuantizer(4, per_channel=True)
    layer = QuantizedLinear(linear, PercentileWeights(linear.weight, 8), quantizer)
    x = torch.randn(64, channels, generator=generator)
    with fitting(layer):
        layer(norm(x))
    return norm, layer, x


@pytest.mark.parametrize("round_zero_point", [True, False])
def test_full_precision_outputs_agree_before_and_after(round_zero_point):
    norm, layer, x = pair()
    before = F.linear(norm(x), layer.weight, layer.bias)
    reparameterize(norm, layer, round_zero_point=round_zero_point)
    torch.testing.assert_close(F.linear(norm(x), layer.weight, layer.bias), before, rtol=1e-4, atol=1e-4)


def test_one_range_gives_the_codes_of_the_per_channel_ranges():
    norm, layer, x = pair()
    quantizer = layer.input_quantizer
    scale, zero_point = quantizer.scale, quantizer.zero_point
    per_channel = quantize_uniform(norm(x), scale, zero_point, 4) / scale + zero_point
    reparameterize(norm, layer, round_zero_point=True)
    one_range = quantizer(norm(x)) / quantizer.scale + quantizer.zero_point
    assert quantizer.scale.shape == quantizer.zero_point.shape == ()
    assert quantizer.scale == scale.mean()
    assert (per_channel.round() == one_range.round()).float().mean() > 0.99


@pytest.mark.parametrize("round_zero_point", [True, False])
def test_zero_point_is_the_mean_and_rounded_on_request(round_zero_point):
    norm, layer, _ = pair()
    mean = layer.input_quantizer.zero_point.mean()
    assert mean != mean.round()
    reparameterize(norm, layer, round_zero_point=round_zero_point)
    assert layer.input_quantizer.zero_point == (mean.round() if round_zero_point else mean)


def test_weight_ranges_are_searched_anew():
    norm, layer, _ = pair()
    before = layer.quantize_weight.scale.clone()
    reparameterize(norm, layer, round_zero_point=True)
    assert torch.equal(layer.quantize_weight.scale, PercentileWeights(layer.weight, 8).scale)
    assert not torch.equal(layer.quantize_weight.scale, before)


def test_every_norm_of_a_block_and_of_patch_merging_is_paired():
    pairs = [tuple(names) for names in normed_layers(tiny("digits_vit").model)]
    assert pairs[:2] == [("blocks.0.norm1", "blocks.0.attn.qkv"), ("blocks.0.norm2", "blocks.0.mlp.fc1")]
    assert len(pairs) == 4 * 2
    swin = normed_layers(tiny("digits_swin").model)
    assert len(swin) == 4 * 2 + 1
    assert ("layers.1.downsample.norm", "layers.1.downsample.reduction") in swin
