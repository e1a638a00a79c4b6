"""Targets and losses of every family against hand-worked values and other implementations."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import rel_entr, softmax
from torchvision.ops import box_iou

from backbones.guidance.guidance import ClassGuidance, RegionGuidance, SetGuidance, logit_distillation
from backbones.guidance.outputs import QueryOutputs, RegionOutputs, corners
from backbones.guidance.set_loss import set_loss


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def queries(seed: int, batch: int = 2, count: int = 7) -> QueryOutputs:
    """Answers of ten classes and 'no object'."""
    boxes = 0.1 + 0.3 * torch.rand(batch, count, 4, generator=seeded(seed))
    return QueryOutputs(random(batch, count, 11, seed=seed).requires_grad_(), boxes.requires_grad_())


def regions(seed: int) -> RegionOutputs:
    """Two levels with three anchors each, and no detections."""
    shapes = [(2, 5, 4, 6), (2, 5, 2, 3)]
    features = tuple(random(*shape, seed=seed).requires_grad_() for shape in shapes)
    objectness = tuple(random(2, 3, *shape[2:], seed=seed + 1).requires_grad_() for shape in shapes)
    deltas = tuple(random(2, 12, *shape[2:], seed=seed + 2).requires_grad_() for shape in shapes)
    return RegionOutputs(features, objectness, deltas, ())


def test_classes_are_drawn_as_they_always_were():
    drawn = ClassGuidance(1000).draw(32, generator=seeded())
    assert torch.equal(drawn, torch.randint(1000, (32,), generator=seeded()))
    assert ClassGuidance(10).nothing(3).tolist() == [-1, -1, -1]


def test_logit_distillation_equals_scipy():
    teacher, student = 4 * random(2, 3, 7)
    p, q = softmax(teacher.numpy() / 5, axis=1), softmax(student.numpy() / 5, axis=1)
    expected = 25 * rel_entr(p, q).sum(axis=1).mean()
    assert logit_distillation(teacher, student, 5.0).item() == pytest.approx(expected, rel=1e-5)
    assert ClassGuidance(7).distillation(teacher, student, 5.0).item() == pytest.approx(expected, rel=1e-5)


def test_class_disagreement_is_the_mean_over_images_of_relative_distances():
    teacher = torch.tensor([[1.0, -3.0], [10.0, 10.0]], requires_grad=True)
    student = torch.tensor([[2.0, -1.0], [10.0, 5.0]])
    loss = ClassGuidance(2).disagreement(teacher, student)
    # image 1: (1 + 2) / (1 + 3); image 2: (0 + 5) / 20
    assert loss.item() == pytest.approx((3 / 4 + 5 / 20) / 2)
    loss.backward()
    # the divisors 2 and 10 carry no gradient: sign / 2 classes / divisor / 2 images
    assert teacher.grad.tolist() == [pytest.approx([-1 / 8, -1 / 8]), pytest.approx([0.0, 1 / 40])]


def test_drawn_sets_hold_one_to_six_objects_inside_the_canvas_that_overlap_little():
    targets = SetGuidance(10).draw(200, generator=seeded())
    assert targets.shape == (200, 6, 5)
    assert targets.dtype == torch.float32
    used = targets[..., 0] >= 0
    assert used.sum(dim=1).unique().tolist() == [1, 2, 3, 4, 5, 6]
    assert targets[used][:, 0].unique().tolist() == list(range(10))
    assert (targets[~used] == -1).all()
    boxes = corners(targets[used][:, 1:])
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    sides = targets[used][:, 3:].prod(dim=1).sqrt()
    assert sides.min() >= 0.12 - 1e-6
    assert sides.max() <= 0.5 + 1e-6
    for rows, mask in zip(targets, used, strict=True):
        inside = corners(rows[mask][:, 1:])
        assert (box_iou(inside, inside) - torch.eye(len(inside))).max() <= 0.3


def test_a_seed_decides_the_drawn_set_and_global_randomness_stays():
    state = torch.get_rng_state()
    first, again, other = (SetGuidance(10).draw(8, generator=seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_targets_move_along_with_their_image():
    guidance = SetGuidance(10)
    targets = guidance.nothing(1)
    targets[0, 0] = torch.tensor([3, 0.5, 0.25, 0.2, 0.1])
    shifted = guidance.moved(targets, down=0.5, right=0.25, mirrored=True)
    assert shifted[0, 0].tolist() == pytest.approx([3, 0.25, 0.75, 0.2, 0.1])
    # Shifted up by 0.25 the box lies on the upper border and its upper half is at the other end.
    cut = guidance.moved(targets, down=-0.25, right=0.0, mirrored=False)
    assert cut[0, 0].tolist() == pytest.approx([3, 0.5, 0.025, 0.2, 0.05])
    # A little further, and most of it is at the other end.
    wrapped = guidance.moved(targets, down=-0.27, right=0.0, mirrored=False)
    assert wrapped[0, 0].tolist() == pytest.approx([3, 0.5, 0.965, 0.2, 0.07])
    assert (shifted[0, 1:] == -1).all()
    torch.testing.assert_close(guidance.moved(targets, down=0.0, right=0.0, mirrored=False), targets)


def test_a_class_has_no_place():
    targets = torch.tensor([3, 4])
    assert ClassGuidance(10).moved(targets, down=0.5, right=0.5, mirrored=True) is targets


def test_the_set_loss_is_the_detection_loss_and_names_what_is_not_finite():
    guidance, outputs = SetGuidance(10), queries(0)
    targets = guidance.draw(2, generator=seeded())
    assert torch.equal(guidance.loss(outputs, targets), set_loss(outputs, targets))
    broken = QueryOutputs(outputs.logits, outputs.boxes * math.inf)
    assert guidance.loss(broken, targets).isnan()
    assert guidance.loss(outputs, guidance.nothing(2)).isfinite()


def test_set_distillation_by_hand():
    # Two queries of one image and one class: one is an object with probability 0.8, the other with 0.2.
    teacher = QueryOutputs(
        torch.tensor([[[math.log(4.0), 0.0], [0.0, math.log(4.0)]]]),
        torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2]]]),
    )
    # The first box is twice as wide, the second is the teacher's.
    student = QueryOutputs(teacher.logits, teacher.boxes + torch.tensor([[[0, 0, 0.2, 0], [0, 0, 0, 0]]]))
    expected = 0.8 * (5 * 0.2 + 2 * (1 - 0.5)) / (0.8 + 0.2)
    loss = SetGuidance(1).distillation(teacher, student, 2.0)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_set_distillation_divides_by_no_less_than_one_object():
    almost_nothing = QueryOutputs(torch.tensor([[[-9.0, 9.0]]]), torch.tensor([[[0.5, 0.5, 0.2, 0.2]]]))
    student = QueryOutputs(almost_nothing.logits, almost_nothing.boxes + 0.3)
    assert SetGuidance(1).distillation(almost_nothing, student, 1.0).item() < 1e-6


def test_classes_of_a_set_are_distilled_query_by_query():
    teacher, student = queries(0), queries(1)
    same_boxes = QueryOutputs(student.logits, teacher.boxes)
    singles = [
        logit_distillation(teacher.logits[i, q][None], student.logits[i, q][None], 5.0)
        for i in range(2)
        for q in range(7)
    ]
    loss = SetGuidance(10).distillation(teacher, same_boxes, 5.0)
    torch.testing.assert_close(loss, torch.stack(singles).mean(), rtol=1e-5, atol=1e-5)


def test_set_disagreement_adds_the_relative_distances_of_logits_and_boxes():
    teacher = QueryOutputs(torch.tensor([[[2.0, -2.0]]]), torch.tensor([[[0.5, 0.5, 0.5, 0.5]]]))
    student = QueryOutputs(torch.tensor([[[1.0, -2.0]]]), torch.tensor([[[0.5, 0.5, 0.5, 0.3]]]))
    expected = 1 / 4 + 0.2 / 2
    assert SetGuidance(1).disagreement(teacher, student).item() == pytest.approx(expected)


def test_region_targets_are_nothing_and_their_loss_is_zero_with_a_gradient():
    guidance, outputs = RegionGuidance(), regions(0)
    targets = guidance.draw(2, generator=seeded())
    assert targets.tolist() == [-1, -1]
    loss = guidance.loss(outputs, targets)
    assert loss.item() == 0
    loss.backward()
    assert all((level.grad == 0).all() for level in outputs.features)


def test_region_distillation_by_hand():
    def one_anchor(feature: float, logit: float, delta: float) -> RegionOutputs:
        shape = (1, 1, 1, 1)
        deltas = torch.tensor([delta, 0.0, 0.0, 0.0]).view(1, 4, 1, 1)
        return RegionOutputs((torch.full(shape, feature),), (torch.full(shape, logit),), (deltas,), ())

    teacher, student = one_anchor(2.0, 0.0, 0.0), one_anchor(3.0, math.log(3.0), 0.5)
    features = 1 / 4
    objectness = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    refinements = 0.5 * (0.5**2 / 2)  # half an object, divided by no less than one
    loss = RegionGuidance().distillation(teacher, student, 5.0)
    assert loss.item() == pytest.approx(features + objectness + refinements, rel=1e-5)


def test_refinements_are_weighted_by_their_own_anchor():
    teacher = regions(0)
    # Anchor 1 alone is an object; only its four numbers may count.
    objectness = torch.full((2, 3, 4, 6), -50.0)
    objectness[:, 1] = 50.0
    teacher = RegionOutputs(teacher.features[:1], (objectness,), teacher.deltas[:1], ())
    moved = teacher.deltas[0].detach().clone()
    moved[:, [0, 1, 2, 3, 8, 9, 10, 11]] += 1
    elsewhere = teacher._replace(deltas=(moved,))
    assert RegionGuidance().distillation(teacher, elsewhere, 1.0).item() == pytest.approx(0, abs=1e-6)
    moved[:, 4:8] += 1
    assert RegionGuidance().distillation(teacher, elsewhere, 1.0).item() == pytest.approx(4 * 0.5)


def test_region_disagreement_is_the_mean_over_levels_of_relative_distances():
    teacher = regions(0)
    student = teacher._replace(features=tuple(1.5 * level for level in teacher.features))
    assert RegionGuidance().disagreement(teacher, student).item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("guidance", "teacher", "student"),
    [
        (ClassGuidance(5), random(3, 5), random(3, 5, seed=1).requires_grad_()),
        (SetGuidance(10), queries(0), queries(1)),
        (RegionGuidance(), regions(0), regions(5)),
    ],
)
def test_students_are_pulled_to_the_teacher(guidance, teacher, student):
    apart = guidance.distillation(teacher, student, 5.0)
    assert apart > guidance.distillation(teacher, teacher, 5.0)
    assert guidance.disagreement(teacher, student) > guidance.disagreement(teacher, teacher) == 0
    apart.backward()
    parts = [student] if isinstance(student, torch.Tensor) else [*student.__class__(*student)]
    for tensor in (t for part in parts for t in (part if isinstance(part, tuple) else (part,))):
        assert tensor.grad.abs().sum() > 0
