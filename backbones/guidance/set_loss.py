"""The loss of DETR-like detectors: predictions and truths are matched one to one, then compared.

Weights and terms as in DETR (Carion et al., ECCV 2020, section 3) and YOLOS (Fang et al., NeurIPS 2021):
class 1, L1 distance of boxes 5, generalized IoU 2; unmatched queries should say 'no object' and count 0.1.
Targets are (n, K, 5) rows of class, centre x, centre y, width, height; class -1 marks an unused row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.guidance.outputs import QueryOutputs, corners

CLASS_WEIGHT = 1.0
DISTANCE_WEIGHT = 5.0
IOU_WEIGHT = 2.0
NO_OBJECT_WEIGHT = 0.1


@torch.no_grad()
def hungarian_match(outputs: QueryOutputs, targets: Tensor) -> Tensor:
    """(n, K) int64: the query that each target row is given to, -1 for unused rows.

    The assignment has the least total cost. Where an image has more truths than there are queries, the rows
    that go empty get -1 too. Raises ValueError when the outputs are not finite.
    """
    from scipy.optimize import linear_sum_assignment

    costs = _costs(outputs, targets).cpu()
    if not costs.isfinite().all():
        raise ValueError("queries cannot be matched: the model's classes or boxes are not finite")
    used = (targets[..., 0] >= 0).cpu()
    matched = torch.full(targets.shape[:2], -1, dtype=torch.int64)
    for image, rows in enumerate(used):
        queries, places = linear_sum_assignment(costs[image][:, rows].numpy())
        matched[image, rows.nonzero().squeeze(1)[places]] = torch.from_numpy(queries)
    return matched.to(targets.device)


def set_loss(
    outputs: QueryOutputs,
    targets: Tensor,
    *,
    class_weight: float = CLASS_WEIGHT,
    no_object_weight: float = NO_OBJECT_WEIGHT,
) -> Tensor:
    """Scalar loss of a batch of n images; gradient flows to the logits and boxes.

    Class terms are averaged over the queries by weight, box terms over the matched truths of the batch.
    """
    matched = hungarian_match(outputs, targets)
    images, rows = (matched >= 0).nonzero(as_tuple=True)
    queries = matched[images, rows]
    found, truth = outputs.boxes[images, queries], targets[images, rows]
    boxes = max(len(truth), 1)
    distance = (found - truth[:, 1:]).abs().sum() / boxes
    separation = (1 - generalized_iou(corners(found), corners(truth[:, 1:]))).sum() / boxes
    classes = _class_loss(outputs.logits, images, queries, truth[:, 0].long(), no_object_weight)
    return class_weight * classes + DISTANCE_WEIGHT * distance + IOU_WEIGHT * separation


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """GIoU in [-1, 1] of boxes (..., 4) given as left, top, right, bottom; the shapes broadcast.

    Rezatofighi et al., CVPR 2019: IoU minus the share of the common hull that neither box covers.
    """
    smallest = torch.finfo(first.dtype).tiny
    overlap = _area(
        torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    )
    hull = _area(
        torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    )
    union = _area(first[..., :2], first[..., 2:]) + _area(second[..., :2], second[..., 2:]) - overlap
    return overlap / union.clamp(min=smallest) - (hull - union) / hull.clamp(min=smallest)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(dim=-1)


def _costs(outputs: QueryOutputs, targets: Tensor) -> Tensor:
    """(n, Q, K) cost of giving a query to a target row; unused rows hold a number without meaning."""
    classes = targets[..., 0].long().clamp(min=0)
    probabilities = outputs.logits.float().softmax(dim=-1)
    right = probabilities.gather(2, classes.unsqueeze(1).expand(-1, probabilities.shape[1], -1))
    found, truth = outputs.boxes.float().unsqueeze(2), targets[:, None, :, 1:]
    distance = (found - truth).abs().sum(dim=-1)
    overlap = generalized_iou(corners(found), corners(truth))
    return DISTANCE_WEIGHT * distance - CLASS_WEIGHT * right - IOU_WEIGHT * overlap


def _class_loss(
    logits: Tensor, images: Tensor, queries: Tensor, classes: Tensor, no_object_weight: float
) -> Tensor:
    """Cross-entropy where every query has a target: its truth's class, or the last class, 'no object'."""
    no_object = logits.shape[-1] - 1
    wanted = torch.full(logits.shape[:2], no_object, dtype=torch.int64, device=logits.device)
    wanted[images, queries] = classes
    weight = torch.ones(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    weight[no_object] = no_object_weight
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight)
