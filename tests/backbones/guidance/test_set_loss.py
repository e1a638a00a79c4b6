"""Matching and set loss against hand-worked cases, brute force and torchvision."""

import itertools
import math

import pytest
import torch
from torchvision.ops import generalized_box_iou_loss

from backbones.guidance.outputs import QueryOutputs, corners
from backbones.guidance.set_loss import generalized_iou, hungarian_match, set_loss

UNUSED = [-1.0, 0, 0, 0, 0]


def random_outputs(images=3, queries=5, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, queries, classes + 1, generator=generator)
    return QueryOutputs(logits, random_boxes(images, queries, generator=generator))


def random_boxes(*shape, generator):
    centre = 0.25 + 0.5 * torch.rand(*shape, 2, generator=generator)
    return torch.cat([centre, 0.05 + 0.4 * torch.rand(*shape, 2, generator=generator)], dim=-1)


def random_targets(counts, rows=4, classes=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (len(counts), rows, 1), generator=generator).float()
    targets = torch.cat([labels, random_boxes(len(counts), rows, generator=generator)], dim=-1)
    for image, count in enumerate(counts):
        targets[image, torch.randperm(rows, generator=generator)[count:], 0] = -1
    return targets


def pair_cost(outputs, image, query, row):
    """One entry of DETR's cost, from torchvision's GIoU."""
    label, box = int(row[0]), row[1:]
    found = outputs.boxes[image, query]
    probability = outputs.logits[image, query].softmax(0)[label]
    separation = generalized_box_iou_loss(corners(found)[None], corners(box)[None])
    return (5 * (found - box).abs().sum() - probability + 2 * (separation - 1)).item()


def test_a_query_on_the_truth_is_matched_to_it():
    boxes = torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.2, 0.2], [0.8, 0.8, 0.3, 0.3]]])
    outputs = QueryOutputs(torch.zeros(1, 3, 3), boxes)
    targets = torch.tensor([[[0, 0.8, 0.8, 0.3, 0.3], UNUSED, [1, 0.2, 0.2, 0.1, 0.1]]])
    assert hungarian_match(outputs, targets).tolist() == [[2, -1, 0]]


def test_equal_boxes_are_matched_by_class():
    boxes = torch.full((1, 2, 4), 0.5)
    logits = torch.tensor([[[0.0, 3.0, 0.0], [3.0, 0.0, 0.0]]])
    targets = torch.tensor([[[0, 0.5, 0.5, 0.5, 0.5], [1, 0.5, 0.5, 0.5, 0.5]]])
    assert hungarian_match(QueryOutputs(logits, boxes), targets).tolist() == [[1, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_the_match_costs_least_of_all_permutations(seed):
    outputs, targets = random_outputs(seed=seed), random_targets([4, 2, 0], seed=seed + 50)
    matched = hungarian_match(outputs, targets)
    for image in range(3):
        rows = [r for r in range(4) if targets[image, r, 0] >= 0]
        assert all((matched[image, r] >= 0) == (r in rows) for r in range(4))

        def total(queries, image=image, rows=rows):
            return sum(
                pair_cost(outputs, image, q, targets[image, r]) for q, r in zip(queries, rows, strict=True)
            )

        best = min(total(queries) for queries in itertools.permutations(range(5), len(rows)))
        assert total(matched[image, rows].tolist()) == pytest.approx(best, abs=1e-5)


def test_truths_beyond_the_queries_go_empty():
    matched = hungarian_match(random_outputs(1, queries=2), random_targets([4]))
    assert sorted(matched[0].tolist()) == [-1, -1, 0, 1]


def test_outputs_that_are_not_finite_are_refused():
    outputs = random_outputs()
    outputs.boxes[1, 2, 0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        hungarian_match(outputs, random_targets([4, 2, 1]))


def test_generalized_iou_by_hand():
    square = torch.tensor([0.0, 0, 2, 2])
    others = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 4, 2], [4, 0, 6, 2], [0, 0, 0, 0]])
    expected = [1, 1 / 7 - 2 / 9, 0, -4 / 12, 0]
    assert generalized_iou(square, others).tolist() == pytest.approx(expected)


def test_generalized_iou_equals_torchvisions():
    generator = torch.Generator().manual_seed(3)
    first, second = (corners(random_boxes(200, generator=generator)) for _ in range(2))
    expected = 1 - generalized_box_iou_loss(first, second)
    torch.testing.assert_close(generalized_iou(first, second), expected, atol=1e-5, rtol=0)


def test_the_loss_by_hand():
    # Two queries, uniform over two classes and 'no object'; the first meets the only truth.
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]])
    targets = torch.tensor([[[1, 0.5, 0.6, 0.2, 0.2], UNUSED]])
    loss = set_loss(QueryOutputs(torch.zeros(1, 2, 3), boxes), targets)
    # The boxes share half their height: IoU 1/3, hull equal to the union.
    assert loss.item() == pytest.approx(math.log(3) + 5 * 0.1 + 2 * (1 - 1 / 3), rel=1e-5)


def test_no_object_counts_by_its_weight():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]])
    targets = torch.tensor([[[0, 0.5, 0.5, 0.2, 0.2]]])
    object_term, no_object_term = math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1))
    for weight in (0.1, 1.0):
        loss = set_loss(QueryOutputs(logits, boxes), targets, no_object_weight=weight)
        expected = (object_term + weight * no_object_term) / (1 + weight)
        assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_an_empty_scene_teaches_no_object_alone():
    outputs = random_outputs(1)
    loss = set_loss(outputs, torch.tensor([[UNUSED, UNUSED]]))
    assert loss.item() == pytest.approx(-outputs.logits.log_softmax(-1)[..., -1].mean().item(), rel=1e-5)


def test_the_loss_ignores_the_order_of_the_truths():
    outputs, targets = random_outputs(), random_targets([4, 3, 1])
    torch.testing.assert_close(set_loss(outputs, targets), set_loss(outputs, targets.flip(1)))


def test_descent_finds_the_truths():
    targets = random_targets([3], seed=5)
    start = random_outputs(1, seed=5)
    logits, raw = start.logits.requires_grad_(), torch.logit(start.boxes).requires_grad_()
    optimizer = torch.optim.Adam([logits, raw], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        set_loss(QueryOutputs(logits, raw.sigmoid()), targets).backward()
        optimizer.step()
    matched = hungarian_match(QueryOutputs(logits, raw.sigmoid()), targets)[0]
    rows = (matched >= 0).nonzero().squeeze(1)
    torch.testing.assert_close(raw[0, matched[rows]].sigmoid(), targets[0, rows, 1:], atol=0.02, rtol=0)
    assert logits[0, matched[rows]].argmax(-1).tolist() == targets[0, rows, 0].tolist()
