"""What the quantized student learns from the teacher beyond its outputs: the structure of attention heads.

Pure functions of tensors; they know nothing about models, taps or training. Outputs are compared by the
backbone's guidance, but for AdaDFQ's loss on logits, which stands here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_C2 = 0.03**2
"""Stabiliser of structural similarity for a dynamic range of 1."""


def entropy_of_difference(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """-T^2 * entropy of softmax((teacher - student) / T), mean over images (AdaDFQ code).

    Both (B, classes). Least, -T^2 ln(classes), where the logits differ by the same number in every class.
    """
    shares = ((teacher - student) / temperature).log_softmax(-1)
    return temperature**2 * (shares.exp() * shares).sum(dim=-1).mean()


def structural_head_distillation(
    teacher: Sequence[Tensor], student: Sequence[Tensor], *, prefix_tokens: int
) -> Tensor:
    """1 - mean structural similarity of attn @ v outputs, a list of layers each (B, H, N, d) (MimiQ, L_HAD).

    s = (2 cov + C2) / (var_P + var_Q + C2) for every image, head and channel, its statistics taken over the
    tokens after the first `prefix_tokens`; mean inside each layer, then over layers. C2 = 0.03^2.
    """
    similarities = [
        _similarity(p[:, :, prefix_tokens:], q[:, :, prefix_tokens:], None, _C2)
        for p, q in zip(teacher, student, strict=True)
    ]
    return 1 - torch.stack(similarities).mean()


def masked_head_distillation(
    teacher: Sequence[Tensor], student: Sequence[Tensor], *, prefix_tokens: int, ratio: float, weight: float
) -> Tensor:
    """The same with `weight` on the tokens of largest teacher output, 1 on the others (MaskAQ, L_HD).

    A token's importance is its mean |teacher output| over heads and channels, per layer and image; the top
    round(ratio * tokens) of them, at least one, count more.
    """
    similarities = []
    for p, q in zip(teacher, student, strict=True):
        p, q = p[:, :, prefix_tokens:], q[:, :, prefix_tokens:]
        weights = _token_weights(p, ratio, weight)
        similarities.append(_similarity(p, q, weights[:, None, :, None] + 1e-6, _C2 + 1e-6))
    return 1 - torch.stack(similarities).mean()


def _token_weights(outputs: Tensor, ratio: float, weight: float) -> Tensor:
    """(B, H, N, d) -> (B, N)."""
    importance = outputs.detach().abs().mean(dim=(1, 3))
    count = max(1, round(ratio * importance.shape[1]))
    weights = torch.ones_like(importance)
    return weights.scatter_(1, importance.topk(count, dim=1).indices, weight)


def _similarity(teacher: Tensor, student: Tensor, weights: Tensor | None, denominator_c2: float) -> Tensor:
    """Mean over images, heads and channels of the structural similarity over tokens; (B, H, N, d) both."""
    share = 1 / teacher.shape[2] if weights is None else weights / weights.sum(dim=2, keepdim=True)
    p = teacher - (share * teacher).sum(dim=2, keepdim=True)
    q = student - (share * student).sum(dim=2, keepdim=True)
    covariance = (share * p * q).sum(dim=2)
    variances = (share * (p.square() + q.square())).sum(dim=2)
    return ((2 * covariance + _C2) / (variances + denominator_c2)).mean()
