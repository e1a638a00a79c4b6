"""Loss terms on logits and pixels: the wanted class, and smooth images."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_DIAGONAL = 1 / math.sqrt(2)


def one_hot_loss(predictions: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, classes) against the labels (B,) the images are made for, in nats."""
    return F.cross_entropy(predictions, labels)


def total_variation(images: Tensor) -> Tensor:
    """Sum of the L2 norms of the four directional differences of a batch (B, C, H, W). PSAQ-ViT code.

    R = |dx| + |dy| + |d diagonal| + |d antidiagonal|, each norm over the whole batch, so that it grows
    with the square root of the number of pixels.
    """
    return _sum_of_norms(images, diagonal_weight=1.0)


def total_variation_by_distance(images: Tensor) -> Tensor:
    """As `total_variation`, the diagonal norms divided by the neighbours' distance sqrt 2. MimiQ, MaskAQ."""
    return _sum_of_norms(images, diagonal_weight=_DIAGONAL)


def _sum_of_norms(images: Tensor, *, diagonal_weight: float) -> Tensor:
    norm: Tensor = _DirectionalNorms.apply(images)
    weights = norm.new_ones(4)
    weights[2:] = diagonal_weight  # filled where it lies: numbers from the host would make it wait
    return norm @ weights


class _DirectionalNorms(torch.autograd.Function):
    """The four norms with a derivative that adds into one buffer: eager autograd moves 3 times the memory."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        norms = torch.stack([(here - there).norm() for here, there in _neighbour_pairs(images)])
        ctx.save_for_backward(images, norms)
        return norms

    @staticmethod
    def backward(ctx: Any, grad_norms: Tensor) -> Tensor:
        images, norms = ctx.saved_tensors
        # A constant batch has norm 0 and no direction; its subgradient is 0.
        factors = torch.where(norms > 0, grad_norms / norms, 0)
        grad = torch.zeros_like(images)
        for (here, there), (grad_here, grad_there), factor in zip(
            _neighbour_pairs(images), _neighbour_pairs(grad), factors, strict=True
        ):
            step = (here - there).mul_(factor)
            grad_here += step
            grad_there -= step
        return grad


def _neighbour_pairs(images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Views of every pixel and its neighbour: right, below, below right, below left."""
    return [
        (images[..., :, 1:], images[..., :, :-1]),
        (images[..., 1:, :], images[..., :-1, :]),
        (images[..., 1:, 1:], images[..., :-1, :-1]),
        (images[..., 1:, :-1], images[..., :-1, 1:]),
    ]
