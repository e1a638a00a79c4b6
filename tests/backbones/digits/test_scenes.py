"""The scenes' splits, boxes and COCO form."""

import contextlib
import io

import pytest
import torch
from torchvision.ops import box_iou

from backbones.digits.images import load_digits_split
from backbones.digits.scenes import (
    REPORT_SCENES,
    SIDE,
    TUNE_SCENES,
    coco_annotations,
    load_scenes,
    load_scenes_split,
    scene_targets,
)

SPLITS = ("train", "tune", "report")
GOLDEN_LABELS = [[0, 2, 8, 8], [4, 3], [6, 8, 3]]
GOLDEN_BOXES = [
    [63.0, 30.0, 91.0, 68.0],
    [31.0, 33.0, 49.0, 59.0],
    [71.0, 6.0, 86.0, 30.0],
    [28.0, 71.0, 44.0, 94.0],
]


@pytest.fixture(scope="module")
def scenes():
    return {split: load_scenes(split, 150, 0) for split in SPLITS}


def every_box(scenes):
    return [
        (image[0], box, label.item(), position.item())
        for image, *rows in zip(scenes.images, scenes.boxes, scenes.labels, scenes.positions, strict=True)
        for box, label, position in zip(*rows, strict=True)
    ]


def test_splits_are_disjoint_in_their_source_digits(scenes):
    sources = {split: set(torch.cat(scenes[split].positions).tolist()) for split in SPLITS}
    for split in SPLITS:
        assert sources[split] <= set(load_digits_split(split).positions)
    assert sources["train"].isdisjoint(sources["report"])
    assert sources["tune"].isdisjoint(sources["train"] | sources["report"])


def test_the_same_arguments_give_the_same_scenes_and_another_seed_others(scenes):
    before = torch.get_rng_state()
    again, other = load_scenes("tune", 150, 0), load_scenes("tune", 150, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.images, scenes["tune"].images)
    assert all(torch.equal(a, b) for a, b in zip(again.boxes, scenes["tune"].boxes, strict=True))
    assert not torch.equal(other.images, again.images)


def test_splits_do_not_share_layouts(scenes):
    assert scenes["train"].boxes[0].tolist() != scenes["report"].boxes[0].tolist()


def test_the_fixed_splits_have_their_stated_sizes():
    assert len(load_scenes_split("tune").images) == TUNE_SCENES == 100
    assert len(load_scenes_split("report").boxes) == REPORT_SCENES == 200
    with pytest.raises(ValueError, match="endless"):
        load_scenes_split("train")


def test_a_report_scene_never_changes():
    scenes = load_scenes_split("report")
    assert [labels.tolist() for labels in scenes.labels[:3]] == GOLDEN_LABELS
    assert scenes.boxes[0].tolist() == GOLDEN_BOXES


def test_images_are_single_channel_in_unit_range(scenes):
    images = scenes["train"].images
    assert images.shape == (150, 1, SIDE, SIDE)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1


def test_scenes_hold_two_to_five_digits_of_every_class(scenes):
    counts = torch.tensor([len(labels) for labels in scenes["train"].labels])
    assert counts.unique().tolist() == [2, 3, 4, 5]
    assert torch.cat(scenes["train"].labels).unique().tolist() == list(range(10))


def test_labels_are_those_of_the_source_digits(scenes):
    digits = load_digits_split("report")
    truth = dict(zip(digits.positions, digits.labels.tolist(), strict=True))
    assert all(truth[position] == label for _, _, label, position in every_box(scenes["report"]))


def test_boxes_lie_inside_the_canvas_and_vary_in_size(scenes):
    boxes = torch.cat(scenes["train"].boxes)
    assert boxes.min() >= 0
    assert boxes.max() <= SIDE
    sides = boxes[:, 2:] - boxes[:, :2]
    assert sides.min() >= 5
    assert sides[:, 1].max() / sides[:, 1].min() > 1.5


def test_boxes_are_tight(scenes):
    for image, box, _, _ in every_box(scenes["train"]):
        left, top, right, bottom = (int(v) for v in box)
        inside = image[top:bottom, left:right]
        assert (inside.amax(dim=1) > 0.3).all()
        assert (inside.amax(dim=0) > 0.3).all()
    # Outside every box less than 0.3 of ink lies over paper of at most 0.45: 0.3 + 0.7 * 0.45 < 0.62.
    marked = torch.zeros(150, SIDE, SIDE, dtype=torch.bool)
    for mask, boxes in zip(marked, scenes["train"].boxes, strict=True):
        for left, top, right, bottom in boxes.int().tolist():
            mask[top:bottom, left:right] = True
    assert not ((scenes["train"].images[:, 0] > 0.62) & ~marked).any()


def test_boxes_hardly_overlap(scenes):
    for split in SPLITS:
        for boxes in scenes[split].boxes:
            overlap = box_iou(boxes, boxes).fill_diagonal_(0)
            assert overlap.max() < 0.25


def test_targets_are_shares_of_the_canvas_with_unused_rows_marked(scenes):
    targets = scene_targets(scenes["tune"])
    assert targets.shape == (150, 5, 5)
    for rows, boxes, labels in zip(targets, scenes["tune"].boxes, scenes["tune"].labels, strict=True):
        used = rows[rows[:, 0] >= 0]
        assert used[:, 0].tolist() == labels.tolist()
        sides = used[:, 3:] * SIDE
        torch.testing.assert_close(used[:, 1:3] * SIDE - sides / 2, boxes[:, :2])
        torch.testing.assert_close(sides, boxes[:, 2:] - boxes[:, :2])
        assert (rows[len(labels) :, 0] == -1).all()


def test_pycocotools_reads_the_annotations_and_scores_the_truth_one(scenes):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = coco_annotations(scenes["tune"])
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        found = truth.loadRes([{**row, "score": 0.9} for row in annotations["annotations"]])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)
    assert truth.getCatIds() == list(range(1, 11))
    assert len(truth.getImgIds()) == 150
    assert len(truth.getAnnIds()) == sum(len(labels) for labels in scenes["tune"].labels)
