"""Quantized layers, quantizers on outputs, and frozen models."""

from __future__ import annotations

import contextlib
import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.base import QuantizationTask
from methods.bits import Bits
from methods.engines.lsq_qat import LsqQat, LsqQatConfig
from methods.engines.psaq_ptq import PsaqPtq, PsaqPtqConfig
from methods.quantization import frozen
from methods.quantization.conversion import quantize_input, quantize_output
from methods.quantization.fake_quantize import symmetric_weights, symmetric_weights_straight_through
from methods.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedMatMul
from methods.testing.models import DIGITS_MODELS, blobs, source_of, tiny

WEIGHTS_4 = functools.partial(symmetric_weights_straight_through, bits=4)


class Double(nn.Module):
    def forward(self, x):
        return 2 * x


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_quantized_linear_quantizes_weights_and_input_and_leaves_the_bias():
    layer = nn.Linear(6, 3)
    x = seeded(2, 6)
    expected = F.linear(2 * x, symmetric_weights(layer.weight, 4), layer.bias)
    actual = QuantizedLinear(layer, functools.partial(symmetric_weights, bits=4), Double())(x)
    assert torch.equal(actual, expected)


def test_quantized_convolution_keeps_its_geometry():
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2)
    x = seeded(2, 4, 9, 9)
    quantized = QuantizedConv2d(layer, lambda weight: weight, None)
    assert torch.equal(quantized(x), layer(x))


def test_a_convolution_with_other_padding_is_refused():
    with pytest.raises(ValueError, match="padding mode 'reflect'"):
        QuantizedConv2d(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), WEIGHTS_4, None)


def test_quantized_product_quantizes_both_factors():
    a, b = seeded(2, 3, 4), seeded(2, 4, 5)
    torch.testing.assert_close(QuantizedMatMul(Double(), nn.Identity())(a, b), 2 * a @ b)
    torch.testing.assert_close(QuantizedMatMul(nn.Identity(), Double())(a, b), 2 * a @ b)


def test_output_and_input_quantizers_survive_a_deep_copy():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            return self.layer(x)

    model = Model()
    quantize_output(model, "layer", Double())
    quantize_input(model, Double())
    copied = copy.deepcopy(model)
    copied.layer.output_quantizer = nn.Identity()
    assert model(torch.ones(1)).item() == 4
    assert copied(torch.ones(1)).item() == 2


def student_of(engine: str, family: str) -> nn.Module:
    bits, images = Bits(4, 4), source_of(blobs(8))
    generator = torch.Generator().manual_seed(0)
    if engine == "psaq_ptq":
        return PsaqPtq(PsaqPtqConfig()).quantize(
            QuantizationTask(tiny(family), images, bits, generator=generator)
        )
    config = LsqQatConfig(epochs=1, warmup_epochs=0)
    return LsqQat(config).quantize(QuantizationTask(tiny(family), images, bits, generator=generator))


@pytest.mark.parametrize("family", DIGITS_MODELS)
@pytest.mark.parametrize("engine", ["psaq_ptq", "lsq_qat"])
def test_a_frozen_student_gives_the_same_logits_and_a_gradient_for_its_input_alone(engine, family):
    student = student_of(engine, family).requires_grad_(True)
    expected = student(blobs(4, seed=1)).detach()
    images = blobs(4, seed=1).requires_grad_()
    with frozen(student):
        logits = student(images)
        logits.square().sum().backward()
    assert torch.equal(logits, expected)
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in student.parameters())


def test_frozen_gradient_of_the_images_equals_the_unfrozen_one():
    student = student_of("lsq_qat", "digits_vit")
    gradients = []
    for context in (frozen(student), contextlib.nullcontext()):
        images = blobs(4, seed=1).requires_grad_()
        with context:
            student(images).square().sum().backward()
        gradients.append(images.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_a_frozen_student_computes_its_weights_once_and_follows_them_again_afterwards():
    calls = []

    def counted(weight: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return weight

    layer = QuantizedLinear(nn.Linear(2, 2, bias=False), counted, None)
    x = torch.ones(1, 2)
    with frozen(layer):
        for _ in range(3):
            layer(x)
    assert len(calls) == 1
    with torch.no_grad():
        layer.weight.zero_()
    assert layer(x).eq(0).all()


def test_frozen_blocks_nest_and_thaw_after_an_error():
    layer = QuantizedLinear(nn.Linear(2, 2), WEIGHTS_4, None)
    with frozen(layer):
        with frozen(layer):
            pass
        assert layer.is_frozen
        assert not layer.weight.requires_grad
    with pytest.raises(RuntimeError, match="planted"), frozen(layer):
        raise RuntimeError("planted")
    assert not layer.is_frozen
    assert layer.weight.requires_grad
