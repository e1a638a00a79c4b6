"""Engines E3 and E4: what is quantized, calibration, reconstruction and storage on tiny models."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from backbones.families.explicit import AttentionTaps
from methods.base import ImageSource, QuantizationTask, SyntheticImages, TrainingFailed
from methods.bits import Bits
from methods.engines.block_reconstruction import BlockReconstruction, BlockReconstructionConfig
from methods.engines.repq_ptq import RepqPtq, RepqPtqConfig
from methods.quantization import frozen
from methods.quantization.fitting import fitted_quantizers
from methods.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedMatMul
from methods.quantization.log_sqrt2 import LogSqrt2Quantizer
from methods.testing.models import DIGITS_MODELS, blobs, source_of, tiny

E3 = RepqPtq(RepqPtqConfig())
E4 = BlockReconstruction(BlockReconstructionConfig(iterations=4))
ENGINES = pytest.mark.parametrize("engine", [E3, E4], ids=["repq_ptq", "block_reconstruction"])
FAMILY = pytest.mark.parametrize("family", DIGITS_MODELS)


def quantized(engine, teacher, images, bits, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return engine.quantize(QuantizationTask(teacher, source_of(images), bits, generator=generator))


def relative_error(student, teacher, images):
    with torch.no_grad():
        expected = teacher.model(images)
        return ((student(images) - expected).norm() / expected.norm()).item()


def in_full_precision(student):
    """The student's parameters without any quantizer."""
    bare = copy.deepcopy(student)
    for module in bare.modules():
        if isinstance(module, QuantizedLinear | QuantizedConv2d):
            module.input_quantizer = module.quantize_weight = nn.Identity()
        elif isinstance(module, QuantizedMatMul):
            module.first_quantizer = module.second_quantizer = nn.Identity()
    return bare


@FAMILY
def test_every_layer_and_product_is_quantized(family):
    teacher = tiny(family)
    student = quantized(E3, teacher, blobs(8), Bits(3, 5))
    layers = [m for m in teacher.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    replaced = [m for m in student.modules() if isinstance(m, QuantizedLinear | QuantizedConv2d)]
    products = [m for m in student.modules() if isinstance(m, QuantizedMatMul)]
    assert not [m for m in student.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert (len(replaced), len(products)) == (len(layers), 2 * 4)
    quantizers = fitted_quantizers(student)
    assert len(quantizers) == len(replaced) + 2 * len(products)
    assert all(q.is_ready and q.scale.shape == () for q in quantizers.values())
    assert {n for n, q in quantizers.items() if q.bits == 8} == {"patch_embed.proj.input_quantizer"}
    assert {n for n, q in quantizers.items() if isinstance(q, LogSqrt2Quantizer)} == {
        n for n in quantizers if n.endswith("attn.av.first_quantizer")
    }
    for layer in replaced:
        rows = layer.quantized_weight().flatten(1)
        assert max(len(row.unique()) for row in rows) <= 2**3


@FAMILY
@pytest.mark.parametrize("mode", ["fixed", "faithful"])
def test_reparameterization_does_not_change_the_full_precision_network(family, mode):
    student = quantized(RepqPtq(RepqPtqConfig(mode=mode)), tiny(family), blobs(32), Bits(4, 4))
    assert relative_error(in_full_precision(student), tiny(family), blobs(16, seed=1)) < 1e-4


@FAMILY
@pytest.mark.parametrize("mode", ["fixed", "faithful"])
def test_only_fixed_mode_has_whole_zero_points(family, mode):
    student = quantized(RepqPtq(RepqPtqConfig(mode=mode)), tiny(family), blobs(16), Bits(4, 4))
    quantizers = fitted_quantizers(student).items()
    after_norm = [q.zero_point for name, q in quantizers if "attn.qkv" in name or "fc1" in name]
    assert all(z == z.round() for z in after_norm) == (mode == "fixed")


@ENGINES
@FAMILY
def test_eight_bits_stay_close_to_full_precision_and_two_bits_do_not(engine, family):
    teacher, images = tiny(family), blobs(32)
    coarse = quantized(engine, teacher, images, Bits(2, 2))
    fine = quantized(engine, teacher, images, Bits(8, 8))
    assert relative_error(coarse, teacher, images) > 0.4
    assert relative_error(fine, teacher, images) < 0.2
    # Powers of sqrt(2) are up to 19 % off at any number of bits. Of the rest most is the image: noise as
    # strong as its rounding moves these teachers' logits by 7 %.
    for module in fine.modules():
        if isinstance(module, QuantizedMatMul) and isinstance(module.first_quantizer, LogSqrt2Quantizer):
            module.first_quantizer = nn.Identity()
    assert relative_error(fine, teacher, images) < 0.1


@ENGINES
@FAMILY
def test_a_stored_student_gives_bit_equal_logits(engine, family):
    student = quantized(engine, tiny(family), blobs(8), Bits(4, 4))
    restored = engine.prepare(tiny(family), Bits(4, 4))
    restored.load_state_dict(student.state_dict())
    assert torch.equal(restored(blobs(5, seed=1)), student(blobs(5, seed=1)))


@ENGINES
@FAMILY
def test_the_teacher_is_untouched(engine, family):
    teacher = tiny(family)
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    quantized(engine, teacher, blobs(4), Bits(3, 3))
    after = teacher.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(p.requires_grad for p in teacher.model.parameters())


@ENGINES
@FAMILY
def test_dead_channels_and_a_zero_layer_do_no_harm(engine, family):
    teacher = tiny(family)
    model = copy.deepcopy(teacher.model)
    block = next(m for m in model.modules() if hasattr(m, "norm1") and hasattr(m, "mlp"))
    block.norm1.weight[:3] = 0.0
    block.norm1.bias[:3] = torch.tensor([0.0, 0.4, -25.0])
    block.norm2.weight[5] = 1e-9
    block.mlp.fc1.weight[2] = 0.0
    block.mlp.fc2.weight.zero_()
    block.mlp.fc2.bias.zero_()
    planted = dataclasses.replace(teacher, model=model)
    student = quantized(engine, planted, blobs(32), Bits(8, 8))
    assert relative_error(student, planted, blobs(16, seed=1)) < 0.3
    assert (
        relative_error(in_full_precision(quantized(E3, planted, blobs(32), Bits(4, 4))), planted, blobs(4))
        < 1e-4
    )


@ENGINES
def test_constant_images_give_finite_logits(engine):
    student = quantized(engine, tiny("digits_vit"), torch.zeros(4, 1, 16, 16), Bits(4, 4))
    assert student(blobs(4)).isfinite().all()


@ENGINES
def test_images_that_are_not_finite_are_refused_with_the_place(engine):
    images = blobs(4)
    images[2, 0, 3, 3] = math.nan
    with pytest.raises(TrainingFailed, match=r"not finite at the input of patch_embed\.proj"):
        quantized(engine, tiny("digits_vit"), images, Bits(8, 8))


def test_calibration_takes_the_first_images_of_a_seeded_shuffle():
    engine, images = RepqPtq(RepqPtqConfig(calibration_images=4)), blobs(12)

    def scale(chosen, seed, using=engine):
        student = quantized(using, tiny("digits_vit"), chosen, Bits(8, 8), seed)
        return student.patch_embed.proj.input_quantizer.scale

    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    assert scale(images, 3) == scale(images[order[:4]], 0, E3)
    assert scale(images, 3) == scale(images, 3)
    assert scale(images, 3) != scale(images, 4)


class TwoSets(ImageSource):
    """A coupled source: a second set, made with the calibrated student."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def first(self, student):
        assert not any(q.is_ready for q in fitted_quantizers(student).values())
        assert student(blobs(2)).isfinite().all()
        return SyntheticImages(blobs(4), torch.zeros(4))

    def refreshed(self, epoch, student):
        self.asked.append(epoch)
        assert all(q.is_ready for q in fitted_quantizers(student).values())
        return SyntheticImages(blobs(1, seed=9), torch.zeros(1))


@ENGINES
@FAMILY
def test_a_coupled_source_is_asked_once_and_its_second_set_alone_counts(engine, family):
    source = TwoSets()
    student = engine.quantize(QuantizationTask(tiny(family), source, Bits(4, 4), generator=torch.Generator()))
    assert source.asked == [1]
    expected = quantized(engine, tiny(family), blobs(1, seed=9), Bits(4, 4)).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in student.state_dict().items())


@ENGINES
@FAMILY
def test_a_frozen_student_is_the_same_and_gives_its_images_a_gradient_under_taps(engine, family):
    student = quantized(engine, tiny(family), blobs(8), Bits(4, 4)).requires_grad_(True)
    expected, gradients = student(blobs(4, seed=1)).detach(), []
    for freeze in (True, False):
        images = blobs(4, seed=1).requires_grad_()
        with AttentionTaps(student, logits=True, outputs=True, maps=True) as taps:
            if freeze:
                with frozen(student):
                    logits = student(images)
                    (logits.square().sum() + taps.maps[-1].square().sum()).backward()
                assert all(p.grad is None and p.requires_grad for p in student.parameters())
            else:
                logits = student(images)
                (logits.square().sum() + taps.maps[-1].square().sum()).backward()
        assert torch.equal(logits, expected)
        gradients.append(images.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[0], gradients[1])


@FAMILY
def test_reconstruction_brings_the_last_block_closer_and_moves_block_weights_alone(family):
    teacher, images = tiny(family), blobs(32)
    before = quantized(E3, teacher, images, Bits(3, 8))
    engine = BlockReconstruction(BlockReconstructionConfig(iterations=40, learning_rate=1e-3))
    after = quantized(engine, teacher, images, Bits(3, 8))
    with torch.no_grad():
        target = teacher.model.forward_features(images)
        errors = [(m.forward_features(images) - target).norm().item() for m in (before, after)]
    assert errors[1] < 0.9 * errors[0]
    old = before.state_dict()
    moved = {name for name, value in after.state_dict().items() if not torch.equal(value, old[name])}
    layers = {n for n, m in after.named_modules() if isinstance(m, QuantizedLinear) and "blocks" in n}
    assert moved == {f"{name}.weight" for name in layers}
    assert not any(p.requires_grad or p.grad is not None for p in after.parameters())


@FAMILY
def test_blocks_are_fitted_front_to_back_behind_the_quantized_prefix(family):
    """The error reported last is that of the last block on inputs from the reconstructed ones before it."""
    teacher, images, calls = tiny(family), blobs(8), []
    engine = BlockReconstruction(BlockReconstructionConfig(iterations=1, learning_rate=1e-6))
    student = engine.quantize(
        QuantizationTask(
            teacher,
            source_of(images),
            Bits(4, 4),
            generator=torch.Generator(),
            progress=lambda step, total, losses: calls.append((step, total, dict(losses))),
        )
    )
    assert [call[:2] for call in calls] == [(1, 1), (1, 4), (2, 4), (3, 4), (4, 4)]
    last = "blocks.3" if family == "digits_vit" else "layers.1.blocks.1"
    outputs = []
    for model in (student, teacher.model):
        handle = model.get_submodule(last).register_forward_hook(lambda m, a, output: outputs.append(output))
        with torch.no_grad():
            model(images)
        handle.remove()
    expected = (outputs[0] - outputs[1]).norm().item()
    assert calls[-1][2]["reconstruction"] == pytest.approx(expected, rel=0.02)


def test_a_learning_rate_that_breaks_the_weights_is_reported():
    engine = BlockReconstruction(BlockReconstructionConfig(iterations=2, learning_rate=math.inf))
    with pytest.raises(TrainingFailed, match="block 0 left weights that are not finite"):
        quantized(engine, tiny("digits_vit"), blobs(4), Bits(4, 4))


@ENGINES
def test_monitor_is_called_once(engine):
    epochs = []
    engine.quantize(
        QuantizationTask(
            tiny("digits_vit"),
            source_of(blobs(4)),
            Bits(8, 8),
            generator=torch.Generator(),
            on_epoch=lambda epoch, student: epochs.append(epoch),
        )
    )
    assert epochs == [0]


@ENGINES
def test_protocol_is_plain_json_and_names_first_and_last_layer(engine):
    protocol = engine.protocol(Bits(4, 6))
    assert json.loads(json.dumps(protocol)) == protocol
    assert (protocol["weight_bits"], protocol["activation_bits"]) == (4, 6)
    assert protocol["first_layer"] == "weights at the target bits, input image at 8 bits"
    assert protocol["last_layer"] == "weights and input at the target bits"
    assert E3.protocol(Bits(4, 4)) != E4.protocol(Bits(4, 4))
