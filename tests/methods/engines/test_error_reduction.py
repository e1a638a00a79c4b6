"""Engine E5: what is quantized, that it reduces the error, modes and storage on tiny models."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from methods.base import QuantizationTask, TrainingFailed
from methods.bits import Bits
from methods.engines.error_reduction import ErrorReduction, ErrorReductionConfig
from methods.engines.repq_ptq import RepqPtq, RepqPtqConfig
from methods.quantization import error_reduction
from methods.quantization.error_reduction import fit_to_quantized_inputs
from methods.quantization.fitting import fitted_quantizers
from methods.quantization.layers import QuantizedConv2d, QuantizedLinear
from methods.testing.models import DIGITS_MODELS, blobs, source_of, tiny

FAMILY = pytest.mark.parametrize("family", DIGITS_MODELS)
E3, E5 = RepqPtq(RepqPtqConfig()), ErrorReduction(ErrorReductionConfig())


def engine(**settings):
    return ErrorReduction(ErrorReductionConfig(**settings))


def quantized(using, teacher, images, bits, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return using.quantize(QuantizationTask(teacher, source_of(images), bits, generator=generator))


def relative_error(student, teacher, images):
    with torch.no_grad():
        expected = teacher.model(images)
        return ((student(images) - expected).norm() / expected.norm()).item()


def layers_of(student):
    return {n: m for n, m in student.named_modules() if isinstance(m, QuantizedLinear | QuantizedConv2d)}


@FAMILY
@pytest.mark.parametrize("dual", [True, False])
def test_weights_are_stored_on_their_grids_with_two_behind_a_layer_norm_at_most(family, dual):
    student = quantized(engine(dual_uniform=dual), tiny(family), blobs(16), Bits(3, 5))
    for name, layer in layers_of(student).items():
        assert torch.equal(layer.quantized_weight(), layer.weight)
        twice = dual and name.endswith(("attn.qkv", "mlp.fc1"))
        assert (layer.quantize_weight.grid_of_column is not None) == twice
        levels = max(len(row.unique()) for row in layer.weight.flatten(1))
        assert levels <= (16 if twice else 8)
    widths = {n: q.bits for n, q in fitted_quantizers(student).items()}
    assert {n for n, bits in widths.items() if bits == 8} == {"patch_embed.proj.input_quantizer"}


@FAMILY
def test_students_answer_more_like_the_teacher_than_calibration_alone(family):
    """On other images than those that it is fitted to, at few bits of the weights."""
    teacher, images, others = tiny(family), blobs(64), blobs(32, seed=1)
    config = {"calibration_images": 64}
    before = quantized(RepqPtq(RepqPtqConfig(**config)), teacher, images, Bits(3, 6))
    after = quantized(engine(**config), teacher, images, Bits(3, 6))
    assert relative_error(after, teacher, others) < 0.9 * relative_error(before, teacher, others)


@FAMILY
def test_activations_are_calibrated_under_float_weights(family):
    """So the first layer's range is engine E3's, and the weights' bits change no range."""
    ranges = [
        {n: q.scale for n, q in fitted_quantizers(quantized(E5, tiny(family), blobs(8), bits)).items()}
        for bits in (Bits(2, 4), Bits(8, 4))
    ]
    assert ranges[0] == ranges[1]


@FAMILY
def test_as_released_the_image_stays_in_full_precision(family):
    faithful = quantized(engine(mode="faithful"), tiny(family), blobs(8), Bits(4, 4))
    assert isinstance(faithful.patch_embed.proj.input_quantizer, nn.Identity)
    protocol = engine(mode="faithful").protocol(Bits(4, 4))
    assert protocol["first_layer"] == "weights at the target bits, input image in full precision"
    assert E5.protocol(Bits(4, 4))["first_layer"] == "weights at the target bits, input image at 8 bits"


@pytest.mark.parametrize(
    ("mode", "behind_tokens", "of_head"),
    [("fixed", 1000 * 8 * 65 / 6304, 0.1 * 8 / 32), ("faithful", 1000.0, 0.1)],
)
def test_the_ridge_follows_the_number_of_tokens_unless_as_released(monkeypatch, mode, behind_tokens, of_head):
    ridges = []

    def watched(weight, moments, ridge):
        ridges.append(ridge)
        return fit_to_quantized_inputs(weight, moments, ridge)

    monkeypatch.setattr(error_reduction, "fit_to_quantized_inputs", watched)
    quantized(engine(mode=mode), tiny("digits_vit"), blobs(8), Bits(4, 4))
    assert ridges == pytest.approx([behind_tokens] * 16 + [of_head])


def test_a_huge_ridge_rounds_to_nearest():
    """Then neither step moves a weight that is not on the grid yet."""
    teacher = tiny("digits_vit")
    student = quantized(engine(ridge=1e5, refinement_steps=0), teacher, blobs(2), Bits(4, 4))
    bare = layers_of(student)["blocks.1.attn.proj"]
    expected = bare.quantize_weight(teacher.model.blocks[1].attn.proj.weight)
    assert (bare.weight == expected).float().mean() > 0.98


@pytest.mark.parametrize("images", [torch.zeros(4, 1, 16, 16), blobs(1)])
def test_constant_images_and_a_single_one_give_finite_logits(images):
    student = quantized(engine(ridge=1.0), tiny("digits_vit"), images, Bits(4, 4))
    assert student(blobs(4)).isfinite().all()


def test_images_that_are_not_finite_are_refused_with_the_place():
    images = blobs(4)
    images[2, 0, 3, 3] = math.nan
    with pytest.raises(TrainingFailed, match=r"not finite at the input of patch_embed\.proj"):
        quantized(E5, tiny("digits_vit"), images, Bits(8, 8))


@FAMILY
def test_layers_without_a_bias_get_one(family):
    teacher = copy.copy(tiny(family))
    object.__setattr__(teacher, "model", copy.deepcopy(tiny(family).model))
    block = next(m for m in teacher.model.modules() if hasattr(m, "mlp"))
    block.mlp.fc2.bias = None
    student = quantized(E5, teacher, blobs(8), Bits(8, 8))
    restored = E5.prepare(teacher, Bits(8, 8))
    restored.load_state_dict(student.state_dict())
    assert torch.equal(restored(blobs(2)), student(blobs(2)))
    assert relative_error(student, teacher, blobs(8)) < 0.3


def test_progress_counts_layers():
    calls = []
    E5.quantize(
        QuantizationTask(
            tiny("digits_vit"),
            source_of(blobs(4)),
            Bits(4, 4),
            generator=torch.Generator(),
            progress=lambda step, total, losses: calls.append((step, total)),
        )
    )
    layers = 4 * 4 + 2
    assert calls == [(1, 1), *((step, layers) for step in range(1, layers + 1))]
