"""Engine E2: what is quantized, how it trains, and that a stored student comes back."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import nn

from backbones import SPECS, Backbone
from backbones.loading import build_model
from methods.base import FixedImages, ImageSource, QuantizationTask, SyntheticImages, TrainingFailed
from methods.bits import Bits
from methods.engines.lsq_qat import LsqQat, LsqQatConfig
from methods.engines.training import DistilledTraining, learning_rate_at
from methods.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedMatMul
from methods.quantization.lsq import LsqQuantizer
from methods.settings import configure
from methods.testing.models import DIGITS_MODELS, blobs, seeded, source_of, tiny

W4A4 = Bits(4, 4)


def trained(family: str, images: torch.Tensor, seed: int = 0, bits: Bits = W4A4, **settings) -> nn.Module:
    config = LsqQatConfig(**{"epochs": 1, "warmup_epochs": 0, **settings})
    generator = torch.Generator().manual_seed(seed)
    return LsqQat(config).quantize(
        QuantizationTask(tiny(family), source_of(images), bits, generator=generator)
    )


def layers_of(student: nn.Module) -> dict[str, nn.Module]:
    kinds = QuantizedLinear | QuantizedConv2d | QuantizedMatMul
    return {name: m for name, m in student.named_modules() if isinstance(m, kinds)}


def test_deit_has_74_quantized_modules_and_its_input_stays_full_precision():
    spec = SPECS["deit_tiny"]
    student = LsqQat(LsqQatConfig()).prepare(Backbone(spec, build_model(spec), "x"), W4A4)
    layers = layers_of(student)
    assert len(layers) == 74
    assert isinstance(layers["patch_embed.proj"].input_quantizer, nn.Identity)
    assert isinstance(layers["head"].input_quantizer, LsqQuantizer)
    assert not any(type(m) in (nn.Linear, nn.Conv2d) for m in student.modules())


def test_swin_quantizes_its_patch_merging_and_classifier():
    layers = layers_of(LsqQat(LsqQatConfig()).prepare(tiny("digits_swin"), W4A4))
    assert len(layers) == 4 * 6 + 3
    assert {"layers.1.downsample.reduction", "head.fc", "patch_embed.proj"} <= set(layers)


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("family", DIGITS_MODELS)
def test_the_classifiers_gradient_and_the_softmax_levels_have_settings(family, unsigned):
    config = LsqQatConfig(unsigned_softmax=unsigned, lsq_g_scale=2.0, head_g_scale=0.5)
    student = LsqQat(config).prepare(tiny(family), W4A4)
    student(blobs(4))
    quantizers = {n: m for n, m in student.named_modules() if isinstance(m, LsqQuantizer)}
    for name, quantizer in quantizers.items():
        assert quantizer.g_scale == (0.5 if name.startswith("head") else 2.0)
        assert quantizer.unsigned == (unsigned and name.endswith("av.first_quantizer"))
        assert not (quantizer.unsigned and quantizer.signed)


@pytest.mark.parametrize("family", DIGITS_MODELS)
def test_eight_bits_start_close_to_full_precision(family):
    student = LsqQat(LsqQatConfig()).prepare(tiny(family), Bits(8, 8))
    images = blobs(32)
    reference = tiny(family).model(images)
    assert (student(images) - reference).norm() < 0.05 * reference.norm()


@pytest.mark.parametrize("family", DIGITS_MODELS)
@pytest.mark.parametrize("distillation", ["none", "structural", "masked"])
def test_training_lowers_the_loss(family, distillation):
    images, losses = blobs(32), []
    student = LsqQat(
        LsqQatConfig(
            epochs=6, warmup_epochs=0, augment=False, head_distillation=distillation, learning_rate=3e-3
        )
    ).quantize(
        QuantizationTask(
            tiny(family),
            source_of(images),
            Bits(3, 3),
            generator=torch.Generator().manual_seed(0),
            progress=lambda step, total, terms: losses.append(sum(terms.values())),
        )
    )
    assert sum(losses[-2:]) < 0.9 * sum(losses[:2])
    assert not student.training
    assert all(p.grad is None for p in student.parameters())


@pytest.mark.parametrize("family", DIGITS_MODELS)
@pytest.mark.parametrize("start", ["searched", "released"])
def test_a_stored_student_gives_bit_equal_logits(family, start):
    student = trained(family, blobs(16), range_start=start)
    restored = LsqQat(LsqQatConfig(range_start=start)).prepare(tiny(family), W4A4)
    restored.load_state_dict(student.state_dict())
    images = 5 * blobs(5, seed=1)
    assert torch.equal(restored(images), student(images))
    assert torch.equal(copy.deepcopy(student)(images), student(images))


def test_another_seed_trains_another_student():
    one, other = (trained("digits_vit", blobs(20), seed=seed)(blobs(4)) for seed in (0, 1))
    assert not torch.equal(one, other)


def test_a_restored_student_can_be_trained_on():
    student = trained("digits_vit", blobs(16))
    restored = LsqQat(LsqQatConfig()).prepare(tiny("digits_vit"), W4A4)
    restored.load_state_dict(student.state_dict())
    restored.requires_grad_(True)(blobs(4)).square().sum().backward()
    quantizer = restored.blocks[0].attn.qkv.input_quantizer
    original = student.blocks[0].attn.qkv.input_quantizer
    assert quantizer.scale.grad.isfinite()
    assert torch.equal(quantizer.gradient_factor, original.gradient_factor)


@pytest.mark.parametrize("start", ["searched", "released"])
@pytest.mark.parametrize("head_distillation", ["structural", "masked"])
def test_a_batch_in_parts_trains_the_same_student_up_to_the_order_of_summation(start, head_distillation):
    config = LsqQatConfig(
        epochs=2, warmup_epochs=0, range_start=start, head_distillation=head_distillation, learning_rate=0.01
    )
    students = {}
    for parts in (1, 3, 50):  # 50: single images
        task = QuantizationTask(tiny("digits_vit"), source_of(blobs(12)), W4A4, seeded(), parts=parts)
        students[parts] = LsqQat(config).quantize(task).state_dict()
    before = LsqQat(config).prepare(tiny("digits_vit"), W4A4).state_dict()
    weights = [name for name in before if name.endswith("weight")]
    moved = max((students[1][name] - before[name]).abs().max().item() for name in weights)
    assert moved > 5e-3
    for parts in (3, 50):  # a sum in another order takes a value over the edge of a level now and then
        for name, whole in students[1].items():
            torch.testing.assert_close(students[parts][name], whole, rtol=0, atol=4e-4, msg=name)


def test_warmup_epochs_set_the_ranges_and_change_no_weight():
    weights, ready = [], []

    def watch(epoch: int, student: nn.Module) -> None:
        assert not student.training
        weights.append(student.head.weight.detach().clone())
        ready.append(all(m.is_ready for m in student.modules() if isinstance(m, LsqQuantizer)))

    LsqQat(LsqQatConfig(epochs=3, warmup_epochs=2)).quantize(
        QuantizationTask(
            tiny("digits_vit"),
            source_of(blobs(16)),
            W4A4,
            generator=torch.Generator().manual_seed(0),
            on_epoch=watch,
        )
    )
    assert ready == [True] * 3
    assert torch.equal(weights[0], tiny("digits_vit").model.head.weight)
    assert torch.equal(weights[1], weights[0])
    assert not torch.equal(weights[2], weights[1])


def test_warmup_that_leaves_no_epoch_is_refused():
    with pytest.raises(ValueError, match="warmup_epochs=2 leaves none of the 2 epochs"):
        trained("digits_vit", blobs(4), epochs=2, warmup_epochs=2)


def test_cosine_schedule_by_hand():
    config = LsqQatConfig(epochs=4, learning_rate=1.0, eta_min_fraction=0.1)
    half = math.sqrt(0.5)
    expected = [0.1 + 0.45 * (1 + c) for c in (half, 0.0, -half, -1.0)]
    assert [learning_rate_at(epoch, config) for epoch in range(4)] == pytest.approx(expected)


class Refreshing(ImageSource):
    """Records how it is asked, and gives a new set before epoch 2."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def first(self, student):
        assert not any(m.is_ready for m in student.modules() if isinstance(m, LsqQuantizer))
        return SyntheticImages(blobs(8), torch.zeros(8))

    def refreshed(self, epoch, student):
        self.asked.append(epoch)
        assert not student.training
        return SyntheticImages(100 * torch.ones(40, 1, 16, 16), torch.zeros(40)) if epoch == 2 else None


def test_the_source_is_asked_before_every_later_epoch_and_its_new_set_is_used():
    source, steps = Refreshing(), []
    LsqQat(LsqQatConfig(epochs=4, warmup_epochs=0, batch_size=4)).quantize(
        QuantizationTask(
            tiny("digits_vit"),
            source,
            W4A4,
            generator=torch.Generator().manual_seed(0),
            progress=lambda step, total, losses: steps.append(total // 4),
        )
    )
    assert source.asked == [1, 2, 3]
    assert steps == [2] * 4 + [10] * 8  # two reports of two steps, then four reports of ten


def test_a_loss_that_is_not_finite_is_named_with_its_epoch_and_step():
    images = blobs(12)
    images[7] = math.nan
    config = LsqQatConfig(epochs=2, warmup_epochs=0, batch_size=12, augment=False)
    with pytest.raises(TrainingFailed, match=r"not finite at epoch 0, step 0 of 1"):
        LsqQat(config).quantize(
            QuantizationTask(
                tiny("digits_vit"), source_of(images), W4A4, generator=torch.Generator().manual_seed(0)
            )
        )


def test_training_that_diverges_is_noticed():
    with pytest.raises(TrainingFailed, match="lower learning_rate"):
        trained("digits_vit", blobs(32), learning_rate=1e30, epochs=1, batch_size=8)


def test_dead_weights_and_constant_images_do_not_break_training():
    teacher = tiny("digits_vit")
    model = copy.deepcopy(teacher.model)
    with torch.no_grad():
        model.blocks[0].mlp.fc1.weight[:5] = 0
        model.blocks[1].attn.qkv.weight.zero_()
        model.blocks[1].attn.qkv.bias.zero_()
    planted = Backbone(teacher.spec, model, "x")
    for start in ("searched", "released"):
        config = LsqQatConfig(epochs=1, warmup_epochs=0, range_start=start)
        images = FixedImages(SyntheticImages(torch.zeros(4, 1, 16, 16), torch.zeros(4)))
        student = LsqQat(config).quantize(
            QuantizationTask(planted, images, W4A4, generator=torch.Generator())
        )
        assert student(blobs(4)).isfinite().all()


@pytest.mark.parametrize("budget", ["paper", "fast", "smoke"])
def test_every_budget_leaves_epochs_to_train_in(budget):
    config = configure(LsqQatConfig, budget, {})
    assert config.warmup_epochs < config.epochs


def test_protocol_is_plain_json_and_tells_starts_and_levels_apart():
    changes = ({}, {"range_start": "released"}, {"unsigned_softmax": False})
    protocols = [LsqQat(LsqQatConfig(**change)).protocol(Bits(4, 8)) for change in changes]
    assert json.loads(json.dumps(protocols[0])) == protocols[0]
    assert (protocols[0]["weight_bits"], protocols[0]["activation_bits"]) == (4, 8)
    assert len({json.dumps(protocol) for protocol in protocols}) == 3


def ranges_of(student: nn.Module) -> list[tuple[float, float]]:
    quantizers = [m for m in student.modules() if isinstance(m, LsqQuantizer)]
    return [(q.scale.item(), q.zero_point.item()) for q in quantizers]


@pytest.mark.parametrize(("start", "hangs_on_the_draw"), [("searched", False), ("released", True)])
def test_a_searched_start_hangs_on_no_draw_of_the_training(start, hangs_on_the_draw):
    """Before any step, so that all that differs is where ranges start."""
    found = []
    for seed in (0, 1):
        config = LsqQatConfig(epochs=2, warmup_epochs=1, range_start=start, learning_rate=1e-5)
        LsqQat(config).quantize(
            QuantizationTask(
                tiny("digits_vit"),
                source_of(blobs(20)),
                W4A4,
                generator=torch.Generator().manual_seed(seed),
                on_epoch=lambda epoch, student: found.append(ranges_of(student)) if epoch == 0 else None,
            )
        )
    assert (found[0] != found[1]) == hangs_on_the_draw


@pytest.mark.parametrize("count", [1, 16, 17, 18, 50])
def test_no_step_is_left_with_the_few_images_of_a_remainder(count):
    sizes = []

    student = LsqQat(LsqQatConfig()).prepare(tiny("digits_vit"), W4A4)
    student(blobs(2))
    student.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    settings = LsqQatConfig(epochs=1, warmup_epochs=0, augment=False)
    task = QuantizationTask(tiny("digits_vit"), source_of(blobs(count)), W4A4, seeded())
    DistilledTraining(
        student, task, settings, before_first_epoch=lambda *_: None, after_first_epoch=lambda _: None
    ).run(1)
    assert sum(sizes) == count
    assert max(sizes) <= 16
    assert max(sizes) - min(sizes) <= 1
