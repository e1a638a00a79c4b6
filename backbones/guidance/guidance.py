"""What a family's answers are compared by: targets for images, the loss on them, teacher against student.

    ClassGuidance    classifiers             logits (B, classes)
    SetGuidance      YOLOS                   QueryOutputs
    RegionGuidance   two-stage detectors     RegionOutputs

Knows nothing about images, methods, scores or which family gives which outputs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.ops import box_iou

from backbones.guidance.outputs import QueryOutputs, RegionOutputs, centres, corners
from backbones.guidance.set_loss import DISTANCE_WEIGHT, IOU_WEIGHT, generalized_iou, set_loss

_MOST_OBJECTS = 6
"""Objects of one image at most; COCO's images have seven on average, many of them tiny."""
_SIDES = (0.12, 0.5)
"""Range of a box's mean side (square root of its area), in shares of the canvas."""
_ASPECT_RATIOS = (0.5, 2.0)
_MOST_OVERLAP = 0.3
"""Intersection over union that two boxes of an image may have."""
_TRIES = 20
"""Draws of one box before the image does without it."""
_SMALLEST = 1e-12
"""Stands for the mean square of features that are all zero."""


class Guidance(ABC):
    """Targets for images that are to be made, and losses on a model's answer to them."""

    @abstractmethod
    def draw(self, count: int, *, generator: Generator) -> Tensor:
        """Random targets for `count` images, on the CPU."""

    @abstractmethod
    def nothing(self, count: int) -> Tensor:
        """The targets of `count` images that were made for nothing, on the CPU."""

    def moved(self, targets: Tensor, *, down: float, right: float, mirrored: bool) -> Tensor:
        """The targets of images shifted cyclically by shares of their sides, then mirrored left to right.

        Targets without a place, such as classes, stay as they are.
        """
        return targets

    @abstractmethod
    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """How far the model's outputs are from the targets: a scalar that is minimized."""

    @abstractmethod
    def distillation(self, teacher: Any, student: Any, temperature: float) -> Tensor:
        """How far the student's outputs are from the teacher's: the scalar that training minimizes."""

    @abstractmethod
    def disagreement(self, teacher: Any, student: Any) -> Tensor:
        """Distance of the outputs over the size of the teacher's: a scalar that adversarial images raise.

        The divisor carries no gradient: an image gains nothing from making the teacher's outputs small.
        """


class ClassGuidance(Guidance):
    """One class per image. Outputs are logits (B, classes), targets (n,) int64."""

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def draw(self, count: int, *, generator: Generator) -> Tensor:
        """Classes drawn uniformly, (count,) int64."""
        return torch.randint(self._classes, (count,), generator=generator)

    def nothing(self, count: int) -> Tensor:
        """The class -1 for every image, (count,) int64."""
        return torch.full((count,), -1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, in nats."""
        return F.cross_entropy(outputs, targets)

    def distillation(self, teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
        """Divergence of the softened class probabilities (`logit_distillation`)."""
        return logit_distillation(teacher, student, temperature)

    def disagreement(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Mean |teacher - student| over mean |teacher| of every image's logits, mean over images."""
        return _relative_distance(teacher, student)


class SetGuidance(Guidance):
    """A set of boxes with classes per image, as DETR-like models give it. Outputs are QueryOutputs.

    Targets are (n, 6, 5) float32: class, centre x, centre y, width, height in shares of the canvas, class -1
    where a row is unused. That a detector's images are made for boxes is Task-specific ZSQ's (ICCV 2025,
    arXiv 2507.16782); that paper asks the teacher for likely ones, drawing them at random is ours.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def draw(self, count: int, *, generator: Generator) -> Tensor:
        """1 to 6 objects per image: uniform classes, boxes inside the canvas that overlap little."""
        targets = self.nothing(count)
        wanted = torch.randint(1, _MOST_OBJECTS + 1, (count,), generator=generator).tolist()
        for image, objects in enumerate(wanted):
            boxes = _scattered_boxes(objects, generator)
            targets[image, : len(boxes), 0] = torch.randint(
                self._classes, (len(boxes),), generator=generator
            ).float()
            targets[image, : len(boxes), 1:] = boxes
        return targets

    def nothing(self, count: int) -> Tensor:
        """Sets of boxes whose rows are all unused, (count, 6, 5)."""
        return torch.full((count, _MOST_OBJECTS, 5), -1.0)

    def moved(self, targets: Tensor, *, down: float, right: float, mirrored: bool) -> Tensor:
        """Boxes move along; of one that crosses the border, the part around its centre remains."""
        classes, x, y, width, height = targets.unbind(-1)
        x, y = (x + right) % 1, (y + down) % 1
        boxes = torch.stack([1 - x if mirrored else x, y, width, height], dim=-1)
        inside = centres(corners(boxes).clamp(0, 1))
        rows = torch.cat([classes.unsqueeze(-1), inside], dim=-1)
        return torch.where(classes.unsqueeze(-1) >= 0, rows, targets)

    def loss(self, outputs: QueryOutputs, targets: Tensor) -> Tensor:
        """DETR's loss after the best assignment of queries to objects; NaN where there is none to make."""
        if not bool(outputs.logits.isfinite().all() & outputs.boxes.isfinite().all()):
            return outputs.logits.sum() * math.nan
        return set_loss(outputs, targets)

    def distillation(self, teacher: QueryOutputs, student: QueryOutputs, temperature: float) -> Tensor:
        """`logit_distillation` of every query + 5 L1 + 2 (1 - GIoU) of its box, weighted by confidence.

        A student's query is the teacher's, so nothing has to be assigned. A box counts as much as the
        teacher sees an object there, 1 - p(no object), and the sum is divided by how many it sees in the
        batch, at least one, as DETR divides by the number of objects. Ours.
        """
        classes = logit_distillation(teacher.logits.flatten(0, 1), student.logits.flatten(0, 1), temperature)
        confidence = 1 - teacher.logits.softmax(dim=-1)[..., -1]
        distance = (teacher.boxes - student.boxes).abs().sum(dim=-1)
        overlap = generalized_iou(corners(student.boxes), corners(teacher.boxes))
        boxes = DISTANCE_WEIGHT * distance + IOU_WEIGHT * (1 - overlap)
        return classes + _weighted(boxes, confidence)

    def disagreement(self, teacher: QueryOutputs, student: QueryOutputs) -> Tensor:
        """Relative distance of the logits plus that of the boxes, over all queries of an image. Ours."""
        logits = _relative_distance(teacher.logits.flatten(1), student.logits.flatten(1))
        return logits + _relative_distance(teacher.boxes.flatten(1), student.boxes.flatten(1))


class RegionGuidance(Guidance):
    """Two-stage detectors: images are made by the backbone's priors alone. Outputs are RegionOutputs.

    Their second stage only sees regions that were chosen without gradient, so there is no loss that says
    "show this here"; the feature pyramid and the region proposals are what students are compared by. Ours.
    """

    def draw(self, count: int, *, generator: Generator) -> Tensor:
        """The number -1 for every image, (count,) int64."""
        return self.nothing(count)

    def nothing(self, count: int) -> Tensor:
        """The number -1 for every image, (count,) int64."""
        return torch.full((count,), -1)

    def loss(self, outputs: RegionOutputs, targets: Tensor) -> Tensor:
        """Zero; its gradient, zero too, reaches whatever made the outputs."""
        return torch.stack([level.sum() for level in outputs.features]).sum() * 0.0

    def distillation(self, teacher: RegionOutputs, student: RegionOutputs, temperature: float) -> Tensor:
        """Features + objectness + box refinements, each a mean over the levels of the pyramid.

        Features: mean squared difference over the teacher's mean square. Objectness: binary cross-entropy
        against the teacher's probabilities. Refinements: smooth L1 of an anchor's four numbers, weighted by
        the teacher's probability of an object. `temperature` has no part: proposals compete in no softmax.
        """
        terms = []
        for level in zip(*teacher[:3], *student[:3], strict=True):
            features, objectness, deltas, own_features, own_objectness, own_deltas = level
            probabilities = objectness.sigmoid()
            refinements = F.smooth_l1_loss(_per_anchor(own_deltas), _per_anchor(deltas), reduction="none")
            terms += [
                F.mse_loss(own_features, features) / features.square().mean().clamp(min=_SMALLEST),
                F.binary_cross_entropy_with_logits(own_objectness, probabilities),
                _weighted(refinements.sum(dim=2), probabilities),
            ]
        return torch.stack(terms).sum() / len(teacher.features)

    def disagreement(self, teacher: RegionOutputs, student: RegionOutputs) -> Tensor:
        """Relative distance of the features, mean over the levels of the pyramid."""
        distances = [
            _relative_distance(one.flatten(1), other.flatten(1))
            for one, other in zip(teacher.features, student.features, strict=True)
        ]
        return torch.stack(distances).mean()


def logit_distillation(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over rows (MaskAQ code, spec 4).

    Both (B, classes); the scalar is in nats times T^2.
    """
    divergence = F.kl_div(
        (student / temperature).log_softmax(-1),
        (teacher / temperature).log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence


def _relative_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean |teacher - student| over mean |teacher| of every row of (B, n), mean over rows."""
    distance = (teacher - student).abs().mean(dim=1)
    return (distance / teacher.detach().abs().mean(dim=1)).mean()


def _weighted(losses: Tensor, confidence: Tensor) -> Tensor:
    """Sum of losses by confidence, both of one shape, over the sum of confidences but at least over one."""
    return (losses * confidence).sum() / confidence.sum().clamp(min=1.0)


def _per_anchor(deltas: Tensor) -> Tensor:
    """(B, anchors * 4, h, w) -> (B, anchors, 4, h, w)."""
    return torch.unflatten(deltas, 1, (-1, 4))


def _scattered_boxes(count: int, generator: Generator) -> Tensor:
    """At most `count` boxes (k, 4), centre x, centre y, width, height; the first always finds a place."""
    boxes = torch.empty(0, 4)
    for _ in range(count):
        for _ in range(_TRIES):
            box = _random_box(generator)
            overlaps = box_iou(corners(box), corners(boxes))
            if not bool((overlaps > _MOST_OVERLAP).any()):
                boxes = torch.cat([boxes, box])
                break
    return boxes


def _random_box(generator: Generator) -> Tensor:
    """(1, 4): side and aspect ratio log-uniform, the place uniform among those inside the canvas."""
    side, ratio, x, y = torch.rand(4, generator=generator)
    side = _log_uniform(side, _SIDES)
    ratio = _log_uniform(ratio, _ASPECT_RATIOS).sqrt()
    width, height = side * ratio, side / ratio
    x, y = width / 2 + x * (1 - width), height / 2 + y * (1 - height)
    return torch.stack([x, y, width, height]).unsqueeze(0)


def _log_uniform(share: Tensor, limits: tuple[float, float]) -> Tensor:
    low, high = map(math.log, limits)
    return (low + share * (high - low)).exp()
