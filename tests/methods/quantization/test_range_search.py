"""The search of range starts: what it judges by, and what it averages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from methods.quantization.fake_quantize import signed_grid
from methods.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedMatMul
from methods.quantization.lsq import LsqQuantizer
from methods.quantization.range_search import best_ends, search_ranges
from methods.testing.models import seeded


def linear(weight: Tensor) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    return nn.Sequential(QuantizedLinear(layer, lambda w: w, LsqQuantizer(4)))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def ends_of(quantizer: LsqQuantizer) -> tuple[float, float]:
    scale, zero_point, grid = quantizer.parameters_now()
    return tuple(((level - zero_point) * scale).item() for level in grid)


def test_each_end_is_cut_by_itself():
    x = torch.cat([torch.linspace(-1, 1, 100_000), torch.tensor([30.0])])
    low, high = best_ends(x, signed_grid(4), lambda quantized: (quantized(x) - x).square().mean())
    assert low == -1
    assert 0.8 < high < 4


def test_what_the_weights_ignore_does_not_widen_a_range():
    x = normal(2, 50, 8)
    x[..., 0] *= 100
    weight = normal(4, 8, seed=1)
    read, ignored = linear(weight.clone()), linear(weight.clone())
    ignored[0].weight.data[:, 0] = 0
    for model in (read, ignored):
        search_ranges(model, [x])
    assert ignored[0].input_quantizer.scale < 0.2 * read[0].input_quantizer.scale


def test_a_few_massive_tokens_do_not_decide_for_all():
    x = normal(2, 50, 8)
    x[:, 0] *= 100
    model = linear(normal(4, 8, seed=1))
    search_ranges(model, [x])
    low, high = ends_of(model[0].input_quantizer)
    assert high - low < 60


def test_ends_are_averaged_over_batches_by_their_images():
    few, many = normal(1, 50, 8), 3 * normal(3, 50, 8, seed=1)
    found = []
    for batches in ([few], [many], [few, many]):
        model = linear(normal(4, 8, seed=2))
        search_ranges(model, batches)
        found.append(ends_of(model[0].input_quantizer))
    expected = [0.25 * few_end + 0.75 * many_end for few_end, many_end in zip(*found[:2], strict=True)]
    assert found[2] == pytest.approx(expected, rel=1e-5)


def test_later_layers_see_inputs_as_quantized_as_they_will_be():
    x = normal(4, 50, 8)
    model = nn.Sequential(*linear(normal(8, 8, seed=1)), *linear(normal(8, 8, seed=2)))
    search_ranges(model, [x])
    with torch.no_grad():
        alone = linear(normal(8, 8, seed=2))
        search_ranges(alone, [model[0](x)])
    assert ends_of(alone[0].input_quantizer) == pytest.approx(ends_of(model[1].input_quantizer), rel=1e-5)


def test_a_product_searches_both_factors_and_a_convolution_its_input():
    product = QuantizedMatMul(LsqQuantizer(4, unsigned=True), LsqQuantizer(4))
    convolution = QuantizedConv2d(nn.Conv2d(3, 2, 3), lambda w: w, LsqQuantizer(4))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.product, self.convolution = product, convolution

        def forward(self, x: Tensor) -> Tensor:
            self.product(x.softmax(dim=-1), x.transpose(-2, -1))
            return self.convolution(x)

    model, x = Model(), normal(2, 3, 9, 9)
    search_ranges(model, [x])
    quantizers = [m for m in model.modules() if isinstance(m, LsqQuantizer)]
    assert [q.is_ready for q in quantizers] == [True] * 3
    with torch.no_grad():
        assert (
            product(x.softmax(dim=-1), x.transpose(-2, -1)) - x.softmax(-1) @ x.mT
        ).norm() < 0.3 * x.norm()


def test_nothing_and_zeros_and_values_that_are_not_finite_break_nothing():
    nothing = linear(normal(4, 8))
    search_ranges(nothing, [torch.zeros(0, 5, 8)])
    assert not nothing[0].input_quantizer.is_ready
    for x in (torch.zeros(2, 5, 8), torch.full((2, 5, 8), torch.nan)):
        model = linear(normal(4, 8))
        search_ranges(model, [x])
        assert model[0].input_quantizer.is_ready


def test_more_values_than_float32_can_count_are_thinned_all_the_same():
    convolution = QuantizedConv2d(nn.Conv2d(1, 1, 1, stride=64), lambda w: w, LsqQuantizer(4))
    search_ranges(nn.Sequential(convolution), [torch.ones(1, 1, 4096, 4097)])
    assert convolution.input_quantizer.is_ready
