"""What detectors say of images, and boxes in the two forms that are in use.

A box is (left, top, right, bottom) or (centre x, centre y, width, height), always in shares of the canvas:
the padded image that the model sees. Knows nothing about models, data sets or scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class QueryOutputs(NamedTuple):
    """A DETR-like detector's answer for a batch: every query names one class and one box."""

    logits: Tensor
    """(B, Q, classes + 1); the last class means 'no object'."""
    boxes: Tensor
    """(B, Q, 4) in [0, 1]: centre x, centre y, width, height."""


class Detections(NamedTuple):
    """What was found in one image, best score first."""

    scores: Tensor
    """(n,) in [0, 1]."""
    labels: Tensor
    """(n,) int64 class indices from 0, without 'no object'."""
    boxes: Tensor
    """(n, 4): left, top, right, bottom."""
    masks: Tensor | None = None
    """(n, 28, 28) probabilities inside each box, where the model gives masks."""


class RegionOutputs(NamedTuple):
    """A two-stage detector's answer for a batch."""

    features: tuple[Tensor, ...]
    """Feature pyramid, finest first, each (B, C, h, w)."""
    objectness: tuple[Tensor, ...]
    """Region proposal logits per level, (B, anchors, h, w)."""
    deltas: tuple[Tensor, ...]
    """Refinements of the anchors' boxes per level, (B, anchors * 4, h, w)."""
    detections: tuple[Detections, ...]
    """One per image, after the second stage; without gradient."""


def corners(boxes: Tensor) -> Tensor:
    """(..., 4) centre x, centre y, width, height -> left, top, right, bottom."""
    import torch

    x, y, width, height = boxes.unbind(-1)
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1)


def centres(boxes: Tensor) -> Tensor:
    """(..., 4) left, top, right, bottom -> centre x, centre y, width, height."""
    import torch

    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], dim=-1)


def best_per_query(outputs: QueryOutputs) -> list[Detections]:
    """One detection per query: its best class other than 'no object', by softmax; best score first."""
    scores, labels = outputs.logits.softmax(-1)[..., :-1].max(-1)
    boxes = corners(outputs.boxes)
    order = scores.argsort(dim=1, descending=True)
    return [Detections(s[o], c[o], b[o]) for s, c, b, o in zip(scores, labels, boxes, order, strict=True)]
