"""Engines on detectors, and how much of a model they quantize."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from backbones import Backbone
from backbones.base import FAMILIES
from backbones.families.registry import family_names, get_family
from methods import configure, engine_names, get_engine
from methods.base import FixedImages, QuantizationTask, SyntheticImages
from methods.bits import Bits
from methods.engines.distillation import structural_head_distillation
from methods.engines.lsq_qat import LsqQat, LsqQatConfig
from methods.engines.training import head_distillation
from methods.quantization.activations import ActivationQuantizer
from methods.quantization.fake_quantize import symmetric_weights
from methods.quantization.layers import QuantizedConv2d, QuantizedLinear
from methods.scope import SCOPES, bits_by_name
from methods.testing.detectors import detector, pictures
from methods.testing.models import blobs, tiny

DETECTORS = {name for name in family_names() if get_family(name).detects}
ENGINES = [name for name in engine_names() if get_engine(name).families & DETECTORS]
LAYERWISE = [name for name in ENGINES if name != "psaq_ptq"]
"""Engines that replace layers; psaq_ptq watches outputs and quantizes weights in place."""
W4A4 = Bits(4, 4)


def engine_of(name: str, scope: str = "whole", **settings):
    made = get_engine(name)
    return made(configure(made.Config, "smoke", settings), scope)


def quantized(engine, teacher: Backbone, bits: Bits = W4A4, count: int = 4) -> nn.Module:
    images = pictures(teacher, count) if teacher.spec.is_detector else blobs(count)
    source = FixedImages(SyntheticImages(images, teacher.guidance.nothing(count)))
    return engine.quantize(
        QuantizationTask(teacher, source, bits, generator=torch.Generator().manual_seed(0))
    )


def tensors_of(outputs) -> list[torch.Tensor]:
    """What a model answered, flat and without detections."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [t for part in outputs[:3] for t in ((part,) if isinstance(part, torch.Tensor) else part)]


def test_block_reconstruction_alone_is_for_classifiers_and_all_have_every_scope():
    assert set(engine_names()) - set(ENGINES) == {"block_reconstruction"}
    for name in engine_names():
        engine = get_engine(name)
        assert engine.families == (FAMILIES if name in ENGINES else {"vit", "swin"})
        assert engine.scopes == set(SCOPES)


@pytest.mark.parametrize("family", ["yolos", "mask_rcnn"])
@pytest.mark.parametrize("name", ENGINES)
def test_eight_bits_are_close_to_full_precision_and_a_stored_student_detects_the_same(name, family):
    teacher, engine = detector(family), engine_of(name)
    student = quantized(engine, teacher, Bits(8, 8))
    images = pictures(teacher, 2, seed=1)
    expected, given = (tensors_of(model(images)) for model in (teacher.model, student))
    # Percentiles cut the tails of random layers, and reparameterized norms change the windows' padding.
    tolerance = 0.5 if name in ("repq_ptq", "error_reduction") else 0.2
    for one, other in zip(expected, given, strict=True):
        assert (one - other).norm() < tolerance * one.norm()
    restored = engine.prepare(teacher, Bits(8, 8))
    restored.load_state_dict(student.state_dict())
    found, again = (model.detections(model(images)) for model in (student, restored))
    assert all(torch.equal(one.boxes, other.boxes) for one, other in zip(found, again, strict=True))


def test_psaq_observes_every_step_of_yolos():
    teacher = detector("yolos")
    points = teacher.quantization_points()
    # 4 embedding steps, 10 in each of 2 blocks, 2 between them, the last norm, 3 layers in each of 2 heads
    assert len(points) == 4 + 2 * 10 + 2 + 1 + 2 * 3
    student = quantized(engine_of("psaq_ptq"), teacher)
    quantizers = [m for m in student.modules() if isinstance(m, ActivationQuantizer)]
    assert len(quantizers) == len(points) + 1
    assert all(quantizer.is_ready for quantizer in quantizers)


def test_psaq_observes_every_layer_of_mask_r_cnn_but_the_transposed_convolution():
    teacher = detector("mask_rcnn")
    points = set(teacher.quantization_points())
    kinds = nn.Linear | nn.Conv2d
    layers = {name for name, module in teacher.model.named_modules() if isinstance(module, kinds)}
    # As in PSAQ-ViT's code, the second half of an MLP is watched behind its activation.
    assert layers - points == {name for name in layers if name.endswith("mlp.fc1")}
    assert {f"backbone.norms.{stage}" for stage in range(4)} <= points
    assert "backbone.body.layers.0.blocks.0.attn.biased" in points


@pytest.mark.parametrize("family", ["yolos", "mask_rcnn"])
@pytest.mark.parametrize("name", LAYERWISE)
def test_no_layer_of_a_detector_is_left_out(name, family):
    student = engine_of(name).prepare(detector(family), W4A4)
    assert not any(type(module) in (nn.Linear, nn.Conv2d) for module in student.modules())
    convolutions = {n: m for n, m in student.named_modules() if isinstance(m, QuantizedConv2d)}
    for place, layer in convolutions.items():
        reads_image = place.endswith("patch_embed.proj")
        assert isinstance(layer.input_quantizer, nn.Identity) == (reads_image and name == "lsq_qat")
        if name in ("repq_ptq", "error_reduction"):
            assert layer.input_quantizer.bits == (8 if reads_image else 4)


@pytest.mark.parametrize("name", ENGINES)
def test_a_detector_that_finds_nothing_is_quantized_and_its_mask_head_takes_no_range_later(name):
    teacher, engine = detector("mask_rcnn", finds=False), engine_of(name)
    student = quantized(engine, teacher)
    restored = engine.prepare(teacher, W4A4)
    restored.load_state_dict(student.state_dict())
    idle = "mask_head"
    for model in (student, restored):
        quantizers = {n: m for n, m in model.named_modules() if isinstance(m, ActivationQuantizer)}
        assert any(idle in place for place in quantizers)
        model.roi_heads.mask_logits(torch.randn(2, 16, 14, 14, generator=torch.Generator().manual_seed(0)))
        for place, quantizer in quantizers.items():
            assert quantizer.is_ready != ("roi_heads.mask" in place), place


@pytest.mark.parametrize(
    ("family", "heads"),
    [("yolos", "none"), ("yolos", "structural"), ("yolos", "masked"), ("mask_rcnn", "structural")],
)
def test_training_lowers_the_distance_to_the_teacher(family, heads):
    teacher, losses = detector(family, finds=family == "yolos"), []
    images = pictures(teacher, 8)
    settings = {"epochs": 4, "batch_size": 4, "augment": False, "learning_rate": 1e-3}
    LsqQat(LsqQatConfig(warmup_epochs=0, head_distillation=heads, **settings)).quantize(
        QuantizationTask(
            teacher,
            FixedImages(SyntheticImages(images, teacher.guidance.nothing(8))),
            Bits(3, 3),
            generator=torch.Generator().manual_seed(0),
            progress=lambda step, total, terms: losses.append(sum(terms.values())),
        )
    )
    assert sum(losses[-2:]) < sum(losses[:2])


def test_training_augments_images_that_are_not_square():
    teacher = detector("yolos")
    assert tensors_of(quantized(engine_of("lsq_qat", augment=True), teacher)(pictures(teacher, 1)))


def test_detection_tokens_take_part_in_the_distillation_of_heads_and_cls_does_not():
    teacher = detector("yolos")
    shape = (2, 2, 30, 16)
    one, other = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    expected = structural_head_distillation([one], [other], prefix_tokens=1)
    assert torch.equal(
        head_distillation([one], [other], LsqQatConfig(), prefix_tokens=teacher.prefix_tokens), expected
    )


def test_the_distillation_of_adadfq_is_refused_on_a_detector():
    engine = LsqQat(LsqQatConfig(epochs=1, warmup_epochs=0, distillation="adadfq"))
    with pytest.raises(ValueError, match="tiny_yolos is a detector: choose kl"):
        quantized(engine, detector("yolos"))


BACKBONES = {
    "digits_vit": ("blocks.3.mlp.fc2", "head"),
    "digits_swin": ("layers.1.blocks.1.mlp.fc2", "head.fc"),
    "yolos": ("blocks.1.mlp.fc2", "box_head.layers.0"),
    "mask_rcnn": ("backbone.body.layers.3.blocks.0.mlp.fc2", "backbone.fpn.inner_blocks.0.0"),
}


def backbone(name: str) -> Backbone:
    return tiny(name) if name.startswith("digits") else detector(name)


@pytest.mark.parametrize("name", BACKBONES)
def test_scopes_give_heads_their_own_bits(name):
    teacher, (inside, head) = backbone(name), BACKBONES[name]
    teacher.model.get_submodule(inside), teacher.model.get_submodule(head)
    found = {scope: [bits_by_name(teacher, W4A4, scope)(at) for at in (inside, head)] for scope in SCOPES}
    assert found == {
        "whole": [W4A4, W4A4],
        "heads_8bit": [W4A4, Bits(8, 8)],
        "backbone": [W4A4, None],
    }


def test_a_module_whose_name_only_begins_like_a_head_s_is_none():
    bits_of = bits_by_name(detector("yolos"), W4A4, "backbone")
    assert bits_of("norm") is None
    assert bits_of("norm_of_something") == W4A4
    assert bits_of("blocks.0.norm1") == W4A4


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", BACKBONES)
def test_psaq_quantizes_what_the_scope_says(name, scope):
    teacher, (inside, head) = backbone(name), BACKBONES[name]
    student = quantized(engine_of("psaq_ptq", scope), teacher)
    widths = {"whole": 4, "heads_8bit": 8, "backbone": None}
    for place, bits in ((inside, 4), (head, widths[scope])):
        original = teacher.model.get_submodule(place).weight
        wanted = original if bits is None else symmetric_weights(original, bits)
        assert torch.equal(student.get_submodule(place).weight, wanted)
    for point in teacher.quantization_points():
        expected = bits_by_name(teacher, W4A4, scope)(point)
        quantizer = getattr(student.get_submodule(point), "output_quantizer", None)
        assert getattr(quantizer, "bits", None) == (expected and expected.activations)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("engine", LAYERWISE)
def test_layers_are_quantized_as_the_scope_says(engine, name, scope):
    teacher, (inside, head) = backbone(name), BACKBONES[name]
    student = engine_of(engine, scope).prepare(teacher, W4A4)
    widths = {"whole": 4, "heads_8bit": 8, "backbone": None}
    for place, bits in ((inside, 4), (head, widths[scope])):
        layer = student.get_submodule(place)
        assert isinstance(layer, QuantizedLinear | QuantizedConv2d) == (bits is not None)
        if bits is not None:
            assert layer.input_quantizer.bits == bits


@pytest.mark.parametrize("engine", engine_names())
def test_the_protocol_tells_scopes_apart(engine):
    protocols = [engine_of(engine, scope).protocol(W4A4) for scope in SCOPES]
    assert [protocol["scope"] for protocol in protocols] == list(SCOPES)
    assert len({json.dumps(protocol["last_layer"]) for protocol in protocols}) == 3
    assert "in full precision" in protocols[2]["last_layer"]


@pytest.mark.parametrize("engine", engine_names())
def test_a_student_whose_heads_are_left_alone_answers_with_the_teacher_s_classifier(engine):
    teacher = tiny("digits_vit")
    student = quantized(engine_of(engine, "backbone"), teacher)
    assert type(student.head) is nn.Linear
    assert student(blobs(2)).isfinite().all()
