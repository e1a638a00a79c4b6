"""Anchors, box refinements and pooling against hand-worked values, mmdet's formulas and torchvision's."""

import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.poolers import LevelMapper

from backbones.families.regions import STRIDES, ClampedBoxCoder, level_anchors, pooled, pyramid_level
from tests.backbones.families import official_mask_rcnn as official

CPU = torch.device("cpu")


def random_boxes(count, canvas, seed=0):
    height, width = canvas
    points = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed))
    points = points.sort(dim=1).values * torch.tensor([width, height])
    return points.flatten(1)


def test_anchors_are_centred_on_upper_left_corners_with_their_area_kept():
    anchors = level_anchors(2, 3, 16, CPU)
    long, short = 64 * math.sqrt(2), 64 / math.sqrt(2)
    assert anchors.shape == (18, 4)
    torch.testing.assert_close(anchors[0], torch.tensor([-long, -short, long, short]))
    torch.testing.assert_close(anchors[4], torch.tensor([16.0 - 64, -64, 16 + 64, 64]))
    torch.testing.assert_close(anchors[17], torch.tensor([32 - short, 16 - long, 32 + short, 16 + long]))
    area = (anchors[:, 2:] - anchors[:, :2]).prod(-1)
    torch.testing.assert_close(area, torch.full((18,), 128.0**2))


@pytest.mark.parametrize("stride", STRIDES)
def test_anchors_equal_the_ones_made_one_by_one(stride):
    torch.testing.assert_close(level_anchors(3, 5, stride, CPU), official.level_anchor_list(3, 5, stride))


def test_anchors_are_torchvisions_before_it_rounds_them():
    canvas = (128, 192)
    maps = [torch.zeros(1, 1, canvas[0] // stride, canvas[1] // stride) for stride in STRIDES]
    generator = AnchorGenerator(tuple((8 * stride,) for stride in STRIDES), ((0.5, 1.0, 2.0),) * 5)
    (theirs,) = generator(ImageList(torch.zeros(1, 3, *canvas), [canvas]), maps)
    ours = torch.cat([level_anchors(*m.shape[2:], s, CPU) for m, s in zip(maps, STRIDES, strict=True)])
    assert (ours - theirs).abs().max() <= 0.5
    torch.testing.assert_close(ours[1::3], theirs[1::3])  # squares have whole sides


def test_refinements_are_limited_in_both_directions():
    boxes = torch.tensor([[100.0, 200.0, 132.0, 216.0]])
    codes = torch.tensor([[0.0, 0.0, -50.0, 50.0, 1.0, -2.0, math.log(2), 0.0]])
    shrunk, moved = ClampedBoxCoder((1.0,) * 4).decode_single(codes, boxes).view(2, 4)
    width, height = 32 * 16 / 1000, 16 * 1000 / 16
    expected = [116 - width / 2, 208 - height / 2, 116 + width / 2, 208 + height / 2]
    torch.testing.assert_close(shrunk, torch.tensor(expected))
    torch.testing.assert_close(moved, torch.tensor([148.0 - 32, 176 - 8, 148 + 32, 176 + 8]))


@pytest.mark.parametrize("stds", [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)])
def test_weights_are_the_inverse_of_mmdets_deviations(stds):
    boxes = random_boxes(50, (300, 400))
    codes = 3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    weights = tuple(1 / std for std in stds)
    decoded = ClampedBoxCoder(weights).decode_single(codes, boxes)
    height, width = 300, 400
    cut = torch.minimum(decoded.clamp(min=0), torch.tensor([width, height] * 2))
    torch.testing.assert_close(cut, official.refined(boxes, codes, stds, (300, 400)), atol=1e-3, rtol=1e-5)


def test_refinements_within_the_limits_are_torchvisions():
    boxes = random_boxes(20, (300, 400))
    codes = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    weights = (10.0, 10.0, 5.0, 5.0)
    ours, theirs = (coder(weights).decode_single(codes, boxes) for coder in (ClampedBoxCoder, BoxCoder))
    assert torch.equal(ours, theirs)


def test_a_box_goes_to_the_level_of_its_mean_side():
    sides = torch.tensor([0.0, 10.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 5000.0])
    boxes = torch.stack([torch.full_like(sides, 7), torch.full_like(sides, 3), 7 + sides, 3 + sides], dim=-1)
    assert pyramid_level(boxes).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert pyramid_level(torch.tensor([[0.0, 0.0, 56.0, 224.0]])).tolist() == [1]  # 112 in the mean


def test_levels_are_torchvisions():
    boxes = random_boxes(2000, (1200, 1300))
    torch.testing.assert_close(pyramid_level(boxes), LevelMapper(2, 5, 224, 4)([boxes]))


@pytest.mark.parametrize("size", [7, 14])
def test_pooling_samples_as_often_as_a_bin_has_cells_and_aligns_half_pixels(size):
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(2, 3, 256 // s, 320 // s, generator=generator) for s in STRIDES]
    boxes = [random_boxes(9, (256, 320)), random_boxes(4, (256, 320), seed=1)]
    boxes[0][0] = torch.tensor([0.0, 0.0, 320.0, 256.0])
    assert len(pyramid_level(torch.cat(boxes)).unique()) > 2
    expected = [
        official.pooled_boxes([level[image] for level in levels], boxes[image], size) for image in (0, 1)
    ]
    torch.testing.assert_close(pooled(levels, boxes, size), torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_pooling_a_ramp_gives_the_bins_centres():
    ramp = (4 * torch.arange(64.0) + 2).expand(1, 1, 64, 64)  # every cell holds its centre in pixels
    levels = [ramp, *(torch.zeros(1, 1, 64 // s, 64 // s) for s in (2, 4, 8))]
    region = pooled(levels, [torch.tensor([[70.0, 70.0, 84.0, 84.0]])], 7)
    torch.testing.assert_close(region[0, 0, 3], 71 + 2 * torch.arange(7.0))


def test_images_without_boxes_pool_nothing():
    levels = [torch.zeros(2, 3, 64 // s, 64 // s) for s in STRIDES]
    none = torch.zeros(0, 4)
    assert pooled(levels, [none, none], 7).shape == (0, 3, 7, 7)
    assert pooled(levels, [none, torch.tensor([[0.0, 0.0, 9.0, 9.0]])], 7).shape == (1, 3, 7, 7)
