"""Engine E1: quantization points, calibration, storage and accuracy on tiny models."""

from __future__ import annotations

import json
import math

import pytest
import torch

from methods.base import ImageSource, QuantizationTask, SyntheticImages, TrainingFailed
from methods.bits import Bits
from methods.engines.psaq_ptq import PsaqPtq, PsaqPtqConfig
from methods.quantization.activations import MinMaxQuantizer
from methods.quantization.fake_quantize import symmetric_weights
from methods.testing.models import DIGITS_MODELS, blobs, source_of, tiny


def quantized(family: str, images: torch.Tensor, bits: Bits, batch_size: int = 32) -> torch.nn.Module:
    engine = PsaqPtq(PsaqPtqConfig(batch_size=batch_size))
    return engine.quantize(
        QuantizationTask(tiny(family), source_of(images), bits, generator=torch.Generator())
    )


def ranges(student: torch.nn.Module) -> dict[str, tuple[float, float]]:
    quantizers = {n: m for n, m in student.named_modules() if isinstance(m, MinMaxQuantizer)}
    return {name: (q.low.item(), q.high.item()) for name, q in quantizers.items()}


@pytest.mark.parametrize(
    ("family", "count"),
    # ViT: input, 4 embedding steps, 10 in each of 4 blocks, CLS and logits. Swin: input, 2 around the patch
    # norm, 12 in each of 4 blocks, 2 in the patch merging, last norm, pooled features and logits.
    [("digits_vit", 1 + 4 + 4 * 10 + 2), ("digits_swin", 1 + 2 + 4 * 12 + 2 + 3)],
)
def test_every_point_of_the_released_code_is_observed(family, count):
    seen = ranges(quantized(family, blobs(4), Bits(8, 8)))
    assert len(seen) == count == len(tiny(family).quantization_points()) + 1
    assert all(low < high for low, high in seen.values())


@pytest.mark.parametrize("family", DIGITS_MODELS)
def test_softmax_outputs_are_not_quantized(family):
    student = quantized(family, blobs(4), Bits(8, 4))
    attention = next(m for m in student.modules() if hasattr(m, "softmax") and hasattr(m, "qk"))
    outputs = []
    attention.softmax.register_forward_hook(lambda module, arguments, output: outputs.append(output))
    student(blobs(2))
    assert len(outputs[0].unique()) > 16


def test_ranges_are_those_of_the_full_precision_teacher():
    teacher, images = tiny("digits_vit"), blobs(6)
    tapped = {}
    names = ("blocks.2.norm2", "blocks.3.mlp.act", "head")
    handles = [
        teacher.model.get_submodule(name).register_forward_hook(
            lambda module, arguments, output, name=name: tapped.__setitem__(name, output)
        )
        for name in names
    ]
    with torch.no_grad():
        teacher.model(images)
    for handle in handles:
        handle.remove()
    seen = ranges(quantized("digits_vit", images, Bits(2, 4)))
    for name in names:
        expected = (tapped[name].min().item(), tapped[name].max().item())
        assert seen[f"{name}.output_quantizer"] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert seen["input_quantizer"] == (images.min().item(), images.max().item())


def test_only_the_class_token_sets_the_range_after_the_last_norm():
    teacher, images = tiny("digits_vit"), blobs(6)
    with torch.no_grad():
        features = teacher.model.forward_features(images)[:, 0]
    seen = ranges(quantized("digits_vit", images, Bits(8, 8)))["fc_norm.output_quantizer"]
    assert seen == pytest.approx((features.min().item(), features.max().item()), rel=1e-4)


def test_batches_join_to_the_ranges_of_one_pass():
    whole, parts = (ranges(quantized("digits_vit", blobs(10), Bits(8, 8), size)) for size in (10, 3))
    for name, expected in whole.items():
        assert parts[name] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("family", DIGITS_MODELS)
def test_weights_are_quantized_and_the_teacher_is_untouched(family):
    teacher = tiny(family)
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    student = quantized(family, blobs(4), Bits(3, 8))
    after = teacher.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    weights = {n: w for n, w in student.state_dict().items() if n.endswith(("qkv.weight", "fc1.weight"))}
    assert weights
    for name, weight in weights.items():
        assert torch.equal(weight, symmetric_weights(before[name], 3))


@pytest.mark.parametrize("family", DIGITS_MODELS)
def test_eight_bits_stay_close_to_full_precision_and_two_bits_do_not(family):
    teacher, images = tiny(family), blobs(64)
    reference = teacher.model(images)
    errors = {
        bits: (quantized(family, images, bits)(images) - reference).norm().item() / reference.norm().item()
        for bits in (Bits(8, 8), Bits(2, 2))
    }
    assert errors[Bits(8, 8)] < 0.15
    assert errors[Bits(2, 2)] > 0.5


@pytest.mark.parametrize("family", DIGITS_MODELS)
def test_a_stored_student_gives_bit_equal_logits(family):
    student = quantized(family, blobs(8), Bits(4, 4))
    restored = PsaqPtq(PsaqPtqConfig()).prepare(tiny(family), Bits(4, 4))
    restored.load_state_dict(student.state_dict())
    assert torch.equal(restored(blobs(5, seed=1)), student(blobs(5, seed=1)))


class TwoSets(ImageSource):
    """A coupled source: a second set, made with the calibrated student."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def first(self, student):
        return SyntheticImages(blobs(4), torch.zeros(4))

    def refreshed(self, epoch, student):
        self.asked.append(epoch)
        assert all(m.is_ready for m in student.modules() if isinstance(m, MinMaxQuantizer))
        return SyntheticImages(blobs(4, seed=9), torch.zeros(4))


def test_a_coupled_source_is_asked_once_and_its_second_set_alone_sets_the_ranges():
    source = TwoSets()
    student = PsaqPtq(PsaqPtqConfig()).quantize(
        QuantizationTask(tiny("digits_vit"), source, Bits(4, 4), generator=torch.Generator())
    )
    assert source.asked == [1]
    assert ranges(student) == ranges(quantized("digits_vit", blobs(4, seed=9), Bits(4, 4)))


def test_images_that_are_not_finite_are_refused_with_the_place():
    images = blobs(4)
    images[2, 0, 3, 3] = math.nan
    with pytest.raises(TrainingFailed, match=r"not finite at the input"):
        quantized("digits_vit", images, Bits(8, 8))


def test_constant_images_give_finite_logits():
    student = quantized("digits_vit", torch.zeros(4, 1, 16, 16), Bits(4, 4))
    assert student(blobs(4)).isfinite().all()


def test_progress_and_monitor_are_called():
    calls, epochs = [], []
    PsaqPtq(PsaqPtqConfig(batch_size=3)).quantize(
        QuantizationTask(
            tiny("digits_vit"),
            source_of(blobs(7)),
            Bits(8, 8),
            generator=torch.Generator(),
            progress=lambda step, total, losses: calls.append((step, total)),
            on_epoch=lambda epoch, student: epochs.append(epoch),
        )
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert epochs == [0]


def test_protocol_is_plain_json_and_names_the_bits():
    protocol = PsaqPtq(PsaqPtqConfig()).protocol(Bits(4, 8))
    assert json.loads(json.dumps(protocol)) == protocol
    assert (protocol["weight_bits"], protocol["activation_bits"]) == (4, 8)
    assert protocol["softmax_output"] == "full precision"
