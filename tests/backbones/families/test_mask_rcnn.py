"""Mask R-CNN on Swin against the official detector's formulas, and what its outputs promise."""

import dataclasses
import functools

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from timm.models.swin_transformer import SwinTransformer

from backbones import SPECS, Backbone
from backbones.families.explicit import AttentionTaps, ExplicitSwinBlock, attention_modules
from backbones.families.mask_rcnn_model import PaddedSwinBlock, best_of_classes
from backbones.families.mmdet_keys import from_official
from backbones.guidance.outputs import Detections, RegionOutputs
from backbones.loading import build_model
from tests.backbones.families import official_mask_rcnn as official

SIZES = {
    "whole windows at no stage": (96, 128),
    "smaller than a window": (32, 64),
    "odd last level": (160, 96),
}


@functools.cache
def state():
    return official.random_state()


@functools.cache
def converted():
    """A tiny model with the random official weights; tests leave it as it is."""
    model = build_model(official.SPEC)
    model.load_state_dict(from_official(state(), model.state_dict()))
    return model.eval().requires_grad_(False)


def images(size=(96, 128), count=2, seed=0):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


@functools.cache
def answered(size=(96, 128)):
    return converted()(images(size))


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("size", [*SIZES.values(), (36, 52), (28, 28)])
def test_swin_stages_equal_the_official_backbone(size):
    # 36 x 52 pixels are 9 x 13 patches: odd maps are merged, and no stage holds whole windows.
    found, expected = converted().backbone.stages(images(size)), official.swin(images(size), state())
    assert [tuple(x.shape) for x in found] == [tuple(x.shape) for x in expected]
    for one, other in zip(found, expected, strict=True):
        close(one, other)


def test_padding_comes_before_the_shift_and_matters():
    plain = build_model(official.SPEC).backbone.body
    for module in plain.modules():
        if isinstance(module, PaddedSwinBlock):
            module.__class__ = ExplicitSwinBlock
    padded = converted().backbone.body
    plain.load_state_dict(padded.state_dict())
    block = padded.layers[0].blocks[1]
    for side, equal in ((14, True), (16, False)):
        x = torch.randn(1, side, side, official.EMBED, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(block(x), plain.layers[0].blocks[1](x), atol=1e-5) == equal


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_pyramid_and_proposal_head_equal_a_direct_computation(size):
    outputs = answered(size)
    levels = official.pyramid(official.swin(images(size), state()), state())
    objectness, deltas = official.rpn(levels, state())
    for found, expected in (
        (outputs.features, levels),
        (outputs.objectness, objectness),
        (outputs.deltas, deltas),
    ):
        assert len(found) == len(expected) == 5
        for one, other in zip(found, expected, strict=True):
            close(one, other)


def test_box_and_mask_heads_equal_a_direct_computation():
    heads = converted().roi_heads
    generator = torch.Generator().manual_seed(0)
    regions = torch.randn(5, official.CHANNELS, 7, 7, generator=generator)
    for found, expected in zip(heads.box_outputs(regions), official.box_head(regions, state()), strict=True):
        close(found, expected)
    regions = torch.randn(5, official.CHANNELS, 14, 14, generator=generator)
    close(heads.mask_logits(regions), official.mask_head(regions, state()))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_proposals_equal_a_direct_computation(size):
    outputs = answered(size)
    found = converted().rpn.propose(list(outputs.objectness), list(outputs.deltas), size)
    for image in (0, 1):
        maps = ([level[image] for level in part] for part in (outputs.objectness, outputs.deltas))
        torch.testing.assert_close(found[image], official.proposals(*maps, size), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_detections_equal_a_direct_computation(size):
    model, (height, width) = converted(), size
    outputs = answered(size)
    boxes = model.rpn.propose(list(outputs.objectness), list(outputs.deltas), size)
    for image, found in enumerate(outputs.detections):
        levels = [level[image] for level in outputs.features]
        expected = official.detections(levels, boxes[image], state(), size)
        assert len(expected) > 10
        scores, labels, places, masks = (
            torch.stack([torch.as_tensor(part) for part in parts]) for parts in zip(*expected, strict=True)
        )
        # Scores may be so near that their order is a matter of rounding: match rows before comparing.
        found_places = found.boxes * torch.tensor([width, height] * 2)
        cost = torch.cdist(places, found_places) + 1e6 * (labels[:, None] != found.labels)
        cost += 1e4 * (scores[:, None] - found.scores).abs()
        _, match = linear_sum_assignment(cost.numpy())
        assert torch.equal(found.labels[match], labels)
        close(found.scores[match], scores)
        torch.testing.assert_close(found_places[match], places, atol=1e-2, rtol=1e-4)
        torch.testing.assert_close(found.masks[match], masks, atol=1e-3, rtol=1e-3)


def test_outputs_keep_what_they_promise():
    outputs = answered()
    assert isinstance(outputs, RegionOutputs)
    assert [tuple(level.shape[2:]) for level in outputs.features] == [
        (24, 32),
        (12, 16),
        (6, 8),
        (3, 4),
        (2, 2),
    ]
    assert len(outputs.detections) == 2
    assert converted().detections(outputs) == list(outputs.detections)
    for found in outputs.detections:
        assert isinstance(found, Detections)
        assert found.scores.min() > 0.05
        assert (found.scores.diff() <= 0).all()
        assert set(found.labels.tolist()) <= set(range(official.CLASSES))
        assert found.boxes.min() >= 0
        assert found.boxes.max() <= 1
        assert found.masks.shape == (len(found.scores), 28, 28)
        assert ((found.masks >= 0) & (found.masks <= 1)).all()


def test_gradients_flow_from_the_first_stage_to_the_image_and_not_from_detections():
    batch = images().requires_grad_()
    outputs = converted()(batch)
    for tensors in (outputs.features, outputs.objectness, outputs.deltas):
        loss = sum(tensor.square().mean() for tensor in tensors)
        (gradient,) = torch.autograd.grad(loss, batch, retain_graph=True)
        assert gradient.isfinite().all()
        assert (gradient != 0).any(dim=(1, 2, 3)).all()
    assert not any(part.requires_grad for found in outputs.detections for part in found)


def test_training_mode_changes_nothing():
    expected = answered()
    model = build_model(official.SPEC).requires_grad_(False).train()
    model.load_state_dict(converted().state_dict())
    found = model(images())
    assert torch.equal(found.detections[0].boxes, expected.detections[0].boxes)
    assert torch.equal(found.features[0], expected.features[0])


def spread_model(background):
    """Untrained, with a bias towards the background or away from it."""
    model = build_model(official.SPEC).eval().requires_grad_(False)
    model.roi_heads.class_logits.bias[-1] = background
    return model


def test_images_in_which_nothing_is_found_run_no_mask_head():
    model = spread_model(background=100.0)
    model.roi_heads.mask_head.register_forward_hook(lambda *_: pytest.fail("the mask head ran"))
    outputs = model(images())
    for found in outputs.detections:
        assert [tuple(part.shape) for part in found] == [(0,), (0,), (0, 4), (0, 28, 28)]
        assert found.labels.dtype == torch.int64


def test_images_without_proposals_run_no_head():
    model = spread_model(background=0.0)
    model.roi_heads.box_head.register_forward_hook(lambda *_: pytest.fail("the box head ran"))
    levels = model.backbone(images())
    found = model.roi_heads(levels, [torch.zeros(0, 4)] * 2, (96, 128))
    assert [len(one.scores) for one in found] == [0, 0]


def test_broken_logits_find_nothing():
    model = spread_model(background=0.0)
    model.rpn.head.cls_logits.bias.fill_(torch.nan)
    model.rpn.head.bbox_pred.bias.fill_(torch.nan)
    assert [len(found.scores) for found in model(images()).detections] == [0, 0]


def test_one_image_may_be_empty_beside_another():
    model = converted()
    levels = model.backbone(images())
    box = torch.tensor([[8.0, 8.0, 60.0, 60.0]])
    empty, found = model.roi_heads(levels, [torch.zeros(0, 4), box], (96, 128))
    (alone,) = model.roi_heads([level[1:] for level in levels], [box], (96, 128))
    assert len(empty.scores) == 0
    assert len(found.scores) > 0
    close(found.masks, alone.masks)


def test_overlapping_boxes_of_one_class_leave_the_best():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 10.0, 4.0]])
    scores = torch.tensor([[0.5, 0.05], [0.6, 0.3], [0.4, 0.051]])
    found = best_of_classes(scores, boxes[:, None].expand(3, 2, 4))
    # Class 0: 0.6 suppresses 0.5 (IoU 0.8) and not 0.4 (IoU 0.5); class 1: 0.05 is not above the threshold.
    torch.testing.assert_close(found.scores, torch.tensor([0.6, 0.4, 0.3, 0.051]))
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(found.boxes, boxes[[1, 2, 1, 2]])


def test_a_hundred_detections_are_kept():
    corner = 20 * torch.arange(150.0)[:, None]
    boxes = torch.cat([corner, corner, corner + 10, corner + 10], dim=1)[:, None]
    scores = torch.linspace(0.1, 0.9, 150)[:, None]
    found = best_of_classes(scores, boxes)
    torch.testing.assert_close(found.scores, scores[:, 0].flip(0)[:100])


def test_attention_of_every_block_is_tapped_and_grids_are_known():
    model = converted()
    assert len(attention_modules(model)) == 8
    with AttentionTaps(model, logits=True) as taps:
        model(images((96, 128)))
    # 24 x 32 patches are padded to 4 x 5 windows of 49 tokens.
    assert tuple(taps.logits[0].shape) == (2 * 20, 1, 49, 49)
    assert len(taps.logits) == 8
    backbone = Backbone(official.SPEC, model, "x")
    assert backbone.prefix_tokens == 0
    assert backbone.patch_grid == (24, 32)


def test_quantized_attention_gives_the_same_outputs():
    expected = answered()
    model = build_model(official.SPEC).eval()
    model.load_state_dict(converted().state_dict())
    for module in attention_modules(model):
        module.quantized = True
    close(model(images()).features[0], expected.features[0])


@pytest.mark.parametrize(("name", "millions"), [("maskrcnn_swin_tiny", 47.8), ("maskrcnn_swin_small", 69.1)])
def test_full_models_have_the_published_sizes(name, millions):
    spec = SPECS[name]
    with torch.device("meta"):
        model = build_model(spec)
    assert isinstance(model.backbone.body, SwinTransformer)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(
        millions, abs=0.05
    )
    assert model.num_classes == spec.num_classes == 80
    assert model.backbone.body.patch_embed.img_size == (640, 640)
    depths = {"maskrcnn_swin_tiny": (2, 2, 6, 2), "maskrcnn_swin_small": (2, 2, 18, 2)}[name]
    shapes = official.official_shapes(96, depths, (3, 6, 12, 24), channels=256, hidden=1024, classes=80)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    model.load_state_dict(from_official(state, model.state_dict()), assign=True)


def test_specifications_are_those_of_the_published_tables():
    tiny, small = SPECS["maskrcnn_swin_tiny"], SPECS["maskrcnn_swin_small"]
    assert (tiny.published_name, tiny.reference_score) == ("Mask R-CNN Swin-T", 46.0)
    assert (small.published_name, small.reference_score) == ("Mask R-CNN Swin-S", 48.5)
    assert tiny.data == small.data
    assert (tiny.data.shorter_side, tiny.data.longer_side, tiny.data.pad_multiple) == (800, 1333, 32)
    assert tiny.data.mean == pytest.approx([m / 255 for m in (123.675, 116.28, 103.53)])
    assert tiny.data.std == pytest.approx([s / 255 for s in (58.395, 57.12, 57.375)])


def test_building_leaves_the_global_random_state():
    before = torch.get_rng_state()
    build_model(dataclasses.replace(official.SPEC, num_classes=3))
    assert torch.equal(torch.get_rng_state(), before)
