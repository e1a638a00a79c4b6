"""Ranges of GELU outputs: searched behind the next norm, kept where nothing is better."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.base import QuantizationTask
from methods.bits import Bits
from methods.engines.repq_ptq import RepqPtq, RepqPtqConfig
from methods.quantization.fitting import fitted_quantizers, fitting
from methods.quantization.layers import QuantizedLinear
from methods.quantization.percentile import PercentileQuantizer, PercentileWeights, uniform_parameters
from methods.quantization.residual_ranges import SHARES, search, searching_behind_norm
from methods.testing.models import DIGITS_MODELS, blobs, source_of, tiny

FAMILY = pytest.mark.parametrize("family", DIGITS_MODELS)


def gelu_outputs(massive: float = 0.0) -> torch.Tensor:
    """(4, 50, 32); where `massive`, two tokens of every image hold it, more or less, in channel 5."""
    x = F.gelu(torch.randn(4, 50, 32, generator=torch.Generator().manual_seed(0)))
    if massive:
        x[:, :2, 5] = massive * torch.linspace(0.8, 1.0, 8).view(4, 2)
    return x


def fitted_layer(x: torch.Tensor, bits: int = 8) -> QuantizedLinear:
    """A layer 32 -> 16 whose input range is the published one for `x`."""
    linear = nn.Linear(32, 16, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.randn(16, 32, generator=torch.Generator().manual_seed(1)))
    layer = QuantizedLinear(linear, PercentileWeights(linear.weight, 8), PercentileQuantizer(bits))
    with fitting(layer):
        layer(x)
    return layer


def residual() -> torch.Tensor:
    return torch.randn(4, 50, 16, generator=torch.Generator().manual_seed(2))


def error_behind_norm(layer: QuantizedLinear, x: torch.Tensor) -> float:
    exact = residual() + F.linear(x, layer.quantized_weight(), layer.bias)
    return F.mse_loss(F.layer_norm(residual() + layer(x), (16,)), F.layer_norm(exact, (16,))).item()


def highest_level(layer: QuantizedLinear) -> float:
    quantizer = layer.input_quantizer
    return ((2**quantizer.bits - 1 - quantizer.zero_point) * quantizer.scale).item()


def test_a_few_massive_tokens_do_not_set_the_steps_of_all_others():
    x = gelu_outputs(massive=200.0)
    layer = fitted_layer(x)
    published = error_behind_norm(layer, x)
    assert highest_level(layer) > 190
    search(layer, x, residual() + layer(x))
    assert highest_level(layer) < 60
    assert error_behind_norm(layer, x) < published / 4


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
@pytest.mark.parametrize("massive", [0.0, 20.0, 200.0])
def test_the_best_of_the_published_range_and_of_every_cut_is_kept(bits, massive):
    x = gelu_outputs(massive)
    layer = fitted_layer(x, bits)
    errors = [error_behind_norm(layer, x)]
    for share in SHARES:
        high = share * x.max()
        cut = fitted_layer(x, bits)
        cut.input_quantizer.use_one_range(*uniform_parameters(x.min().clamp(min=-high), high, bits))
        errors.append(error_behind_norm(cut, x))
    search(layer, x, residual() + layer(x))
    assert error_behind_norm(layer, x) == pytest.approx(min(errors), rel=1e-4)


def test_the_output_returned_is_that_of_the_new_range():
    x = gelu_outputs(massive=200.0)
    layer = fitted_layer(x)
    before = residual() + layer(x)
    after = search(layer, x, before)
    torch.testing.assert_close(after, residual() + layer(x), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(after, before, atol=0.1)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_constant_input_stays_exact(value):
    x = torch.full((4, 50, 32), value)
    layer = fitted_layer(x)
    search(layer, x, residual() + layer(x))
    torch.testing.assert_close(layer.input_quantizer(x), x, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_range_that_is_not_finite_stays_so(broken):
    x = gelu_outputs()
    x[1, 2, 3] = broken
    layer = fitted_layer(x)
    search(layer, x, residual() + layer(x))
    assert layer.input_quantizer.scale.isnan()


@FAMILY
def test_what_comes_behind_a_block_sees_its_output_under_the_new_range(family):
    student = RepqPtq(RepqPtqConfig()).prepare(tiny(family), Bits(3, 3))
    outputs = []
    block = next(m for m in student.modules() if hasattr(m, "norm1") and hasattr(m, "mlp"))
    block.register_forward_hook(lambda module, arguments, output: outputs.append(output))
    with torch.no_grad():
        with fitting(student), searching_behind_norm(student):
            student(blobs(8))
        student(blobs(8))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)


@FAMILY
def test_only_fixed_mode_searches_and_no_hook_stays(family):
    scales = {}
    for mode in ("fixed", "faithful"):
        engine = RepqPtq(RepqPtqConfig(mode=mode))
        generator = torch.Generator().manual_seed(0)
        student = engine.quantize(
            QuantizationTask(tiny(family), source_of(blobs(16)), Bits(4, 4), generator=generator)
        )
        scales[mode] = {name: q.scale.item() for name, q in fitted_quantizers(student).items()}
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in student.modules())
    plain = RepqPtq(RepqPtqConfig()).prepare(tiny(family), Bits(4, 4))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), fitting(plain):
        plain(blobs(16)[order])
    published = {
        n: q.scale.item() for n, q in fitted_quantizers(plain).items() if n.endswith("fc2.input_quantizer")
    }
    assert all(scales["faithful"][name] == scale for name, scale in published.items())
    assert any(scales["fixed"][name] != scale for name, scale in published.items())
