"""COCO's metrics, AP of single images and agreement, against pycocotools itself and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.detection_scoring import Found, Truth, agreement, coco_scores, encoded_masks, rows_of
from tests.tasks.fake_detectors import direct, write_coco

SIZE = (200, 160)
CATEGORY_IDS = (1, 3, 90)


def truth(boxes, labels, crowd=None, segments=None, size=SIZE):
    boxes = torch.tensor(boxes, dtype=torch.float64).view(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    flags = torch.zeros(len(boxes)) if crowd is None else torch.tensor(crowd)
    return Truth(size, boxes, torch.tensor(labels).long(), sides.prod(1), flags.bool(), segments)


def found(boxes, labels, scores, segments=None):
    order = torch.tensor(scores, dtype=torch.float64).argsort(descending=True)
    boxes = torch.tensor(boxes, dtype=torch.float64).view(-1, 4)
    return Found(
        boxes[order], torch.tensor(labels).long()[order], torch.tensor(scores).double()[order], segments
    )


def rectangle(box):
    left, top, right, bottom = box
    return [[left, top, right, top, right, bottom, left, bottom]]


def hand_made(seed=0, images=12):
    """Truths with crowds and empty images, and detections around them, beside them and of wrong classes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(*shape, generator=generator)

    truths, answers = [], []
    for image in range(images):
        count = 0 if image % 5 == 4 else 1 + image % 4
        corner, side = draw(count, 2, high=90), draw(count, 2, low=10, high=70)
        boxes = torch.cat([corner, corner + side], 1)
        labels = torch.randint(3, (count,), generator=generator)
        crowd = [image % 6 == 2 and row == 0 for row in range(count)]
        truths.append(truth(boxes.tolist(), labels.tolist(), crowd))
        moved = boxes.repeat(2, 1) + draw(2 * count, 4, low=-8, high=8)
        stray = torch.tensor([[5.0, 5.0, 40.0, 50.0]])
        guesses = torch.cat([labels, torch.randint(3, (count + 1,), generator=generator)])
        scores = draw(len(guesses), low=0.05)
        answers.append(found(torch.cat([moved, stray]).tolist(), guesses.tolist(), scores.tolist()))
    return truths, answers


def written(folder, truths):
    images = [(i, f"{i}.jpg", *t.size) for i, t in enumerate(truths, 1)]
    annotations = [
        {
            "id": 100 * image + row + 1,
            "image_id": image,
            "category_id": CATEGORY_IDS[label],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": area,
            "iscrowd": int(crowd),
        }
        for image, t in enumerate(truths, 1)
        for row, (box, label, area, crowd) in enumerate(
            zip(t.boxes.tolist(), t.labels.tolist(), t.areas.tolist(), t.crowd.tolist(), strict=True)
        )
    ]
    return write_coco(folder, images, annotations)


def as_results(answers):
    return [
        {
            "image_id": image,
            "category_id": CATEGORY_IDS[label],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": score,
        }
        for image, one in enumerate(answers, 1)
        for box, label, score in zip(
            one.boxes.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True
        )
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_are_exactly_those_of_a_direct_call(tmp_path, seed):
    truths, answers = hand_made(seed)
    expected = direct(written(tmp_path, truths), as_results(answers), list(range(1, len(truths) + 1)))
    scores = coco_scores(truths, answers)
    assert scores.metrics == expected
    assert 5 < scores.metrics["ap"] < 60
    assert scores.notes == ()


def test_ap_of_an_image_is_that_of_a_data_set_of_this_image_alone(tmp_path):
    truths, answers = hand_made()
    file, results = written(tmp_path, truths), as_results(answers)
    per_image = coco_scores(truths, answers).image_ap
    for image, (one, value) in enumerate(zip(truths, per_image, strict=True), 1):
        if not one.crowd.all():
            assert 100 * value == pytest.approx(direct(file, results, [image])["ap"], abs=1e-9)
    assert len(set(per_image)) > 5


def test_truth_fed_back_scores_100(capsys):
    truths, _ = hand_made()
    perfect = [
        Found(t.boxes[~t.crowd], t.labels[~t.crowd], torch.ones(int((~t.crowd).sum())).double())
        for t in truths
    ]
    scores = coco_scores(truths, perfect)
    assert scores.metrics == dict.fromkeys(
        ("ap", "ap50", "ap75", "ap_small", "ap_medium"), pytest.approx(100)
    )
    assert (scores.image_ap == 1).all()
    assert capsys.readouterr().out == ""


def test_average_precision_by_hand():
    # Two objects; right, wrong, right in order of score: precision 1 up to recall 1/2 and 2/3 up to 1.
    # COCO reads it at the 101 recalls 0, 0.01, ..., 1: 51 times 1 and 50 times 2/3, at every IoU threshold.
    boxes = [[10, 10, 50, 50], [60, 60, 120, 120]]
    one = found([boxes[0], [130, 10, 190, 60], boxes[1]], [0, 0, 0], [0.9, 0.8, 0.7])
    scores = coco_scores([truth(boxes, [0, 0])], [one])
    assert scores.metrics["ap"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert scores.image_ap == pytest.approx([(51 + 50 * 2 / 3) / 101])


def test_an_average_over_no_object_is_absent():
    one = [[10.0, 10.0, 30.0, 30.0]]
    metrics = coco_scores([truth(one, [0])], [found(one, [0], [1.0])]).metrics
    assert set(metrics) == {"ap", "ap50", "ap75", "ap_small"}


def test_an_image_that_shows_nothing_is_right_without_confident_detections():
    box = [[10.0, 10.0, 60.0, 60.0]]
    truths = [truth(box, [0]), truth([], []), truth([], []), truth([], []), truth(box, [0], crowd=[1])]
    answers = [found(box, [0], [0.9]), found([], [], []), found(box, [1], [0.5]), found(box, [1], [0.51])]
    answers.append(found([], [], []))
    assert coco_scores(truths, answers).image_ap.tolist() == [1, 1, 1, 0, 1]


def test_nothing_found_at_all_scores_0():
    box = [[10.0, 10.0, 60.0, 60.0]]
    scores = coco_scores([truth(box, [2])], [found([], [], [])])
    assert scores.metrics["ap"] == 0
    assert scores.image_ap.tolist() == [0]


def test_masks_are_scored_where_both_sides_have_them():
    boxes = [[10.0, 20.0, 50.0, 60.0], [70.0, 30.0, 150.0, 130.0]]
    segments = tuple(map(rectangle, boxes))
    whole = torch.ones(2, 28, 28)
    part = whole.clone()
    part[:, :, 16:] = 0
    tensor = torch.tensor(boxes)
    scores = {
        name: coco_scores(
            [truth(boxes, [0, 1], segments=segments)],
            [found(boxes, [0, 1], [0.9, 0.8], encoded_masks(masks, tensor, SIZE))],
        ).metrics
        for name, masks in (("whole", whole), ("part", part))
    }
    assert scores["whole"]["mask_ap"] == pytest.approx(100)
    assert scores["part"]["ap"] == pytest.approx(100)
    # 16 of 28 columns are 57 %: a hit at the first two of ten thresholds.
    assert scores["part"]["mask_ap50"] == pytest.approx(100)
    assert scores["part"]["mask_ap"] == pytest.approx(20)


def test_mask_metrics_are_those_of_a_direct_call(tmp_path):
    boxes = [[10.0, 20.0, 50.0, 60.0], [70.0, 30.0, 150.0, 130.0]]
    rle = encoded_masks(
        torch.rand(2, 28, 28, generator=torch.Generator().manual_seed(1)), torch.tensor(boxes), SIZE
    )
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": category,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": (box[2] - box[0]) * (box[3] - box[1]),
            "iscrowd": 0,
            "segmentation": rectangle(box),
        }
        for number, box, category in zip((1, 2), boxes, (1, 3), strict=True)
    ]
    file = write_coco(tmp_path, [(1, "1.jpg", *SIZE)], annotations)
    results = [
        {"image_id": 1, "category_id": c, "score": s, "segmentation": {**r, "counts": r["counts"].decode()}}
        for c, s, r in zip((1, 3), (0.9, 0.8), rle, strict=True)
    ]
    one = truth(boxes, [0, 1], segments=tuple(map(rectangle, boxes)))
    metrics = coco_scores([one], [found(boxes, [0, 1], [0.9, 0.8], rle)]).metrics
    expected = direct(file, results, [1], "segm")
    assert {f"mask_{name}": value for name, value in expected.items()}.items() <= metrics.items()


def test_truth_without_segmentations_leaves_boxes_alone_and_says_so():
    box = [[10.0, 10.0, 60.0, 60.0]]
    masks = encoded_masks(torch.ones(1, 28, 28), torch.tensor(box), SIZE)
    scores = coco_scores([truth(box, [0])], [found(box, [0], [0.9], masks)])
    assert "mask_ap" not in scores.metrics
    assert scores.notes == ("no mask AP: 1 annotated objects are in images without all segmentations",)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pycocotools about NumPy
def test_a_mask_is_read_at_the_centres_of_the_pixels():
    from pycocotools.mask import decode

    mask = torch.zeros(1, 2, 2)
    mask[0, 0] = 1  # the upper half of the box
    (run,) = encoded_masks(mask, torch.tensor([[2.0, 1.0, 6.0, 9.0]]), (8, 12))
    expected = np.zeros((12, 8))
    expected[1:5, 2:6] = 1
    # Outside the box lies 0, which counts at the corners: 0.75 x 0.625 there.
    expected[[1, 1, 4, 4], [2, 5, 2, 5]] = 0
    assert (decode(run) == expected).all()


def test_a_mask_is_cut_at_the_image_and_may_have_no_extent():
    from pycocotools.mask import area

    boxes = torch.tensor([[-10.0, -10.0, 10.0, 10.0], [5.0, 5.0, 5.0, 9.0], [300.0, 5.0, 310.0, 9.0]])
    assert area(list(encoded_masks(torch.ones(3, 28, 28), boxes, SIZE))).tolist() == [100, 0, 0]


def rows(*entries):
    """(label, score, box in pixels of a 100-pixel image) to padded rows."""
    labels, scores, boxes = zip(*entries, strict=True) if entries else ((), (), ())
    return rows_of(found(list(boxes), list(labels), list(scores)), (100, 100))


HERE, BESIDE, THERE = [10, 10, 30, 30], [12, 10, 32, 30], [60, 60, 90, 90]


@pytest.mark.parametrize(
    ("ours", "theirs", "f1"),
    [
        ([], [], 1.0),
        ([(0, 0.4, HERE)], [], 1.0),
        ([(0, 0.9, HERE)], [], 0.0),
        ([], [(0, 0.9, HERE)], 0.0),
        ([(0, 0.9, HERE)], [(0, 0.6, BESIDE)], 1.0),
        ([(1, 0.9, HERE)], [(0, 0.9, HERE)], 0.0),
        ([(0, 0.9, THERE)], [(0, 0.9, HERE)], 0.0),
        # Two answers for one object: 1 match among 2 and 1.
        ([(0, 0.9, HERE), (0, 0.8, BESIDE)], [(0, 0.9, HERE)], 2 / 3),
        # The surer one takes what it overlaps most; the other one still finds its own.
        ([(0, 0.9, BESIDE), (0, 0.8, HERE)], [(0, 0.9, HERE), (0, 0.8, BESIDE), (2, 0.7, THERE)], 0.8),
    ],
)
def test_agreement_by_hand(ours, theirs, f1):
    assert agreement(rows(*ours), rows(*theirs)) == pytest.approx(f1)


def test_rows_are_shares_of_the_image_and_padded():
    made = rows_of(found([[20, 40, 100, 160]], [7], [0.75]), SIZE)
    assert made.shape == (100, 6)
    assert made[0].tolist() == pytest.approx([7, 0.75, 0.1, 0.25, 0.5, 1.0])
    assert (made[1:, 0] == -1).all()
