"""Loss terms on attention logits: heads that agree, patches that differ, and a student that looks alike.

Every function takes one layer's q k^T as `AttentionTaps` collects it: (B, H, N, N) with `prefix_tokens` = 1
for ViT and DeiT, 1 + detection tokens for YOLOS; (B * windows, H, N, N) with `prefix_tokens` = 0 for Swin.
Layers are averaged by the caller.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMINANCE_CONSTANT = 0.01**2
_CONTRAST_CONSTANT = 0.03**2
_ENTROPY_OF_UNIT_GAUSSIAN = 0.5 * math.log(2 * math.pi * math.e)


def head_ssim_loss(logits: Tensor, *, prefix_tokens: int) -> Tensor:
    """Mean of 1 - SSIM^2 over queries and all pairs of heads: 0 when heads see the same structure. MimiQ.

    A query's row of patch keys, min-max normalized per head, is one map; SSIM takes its global mean,
    variance and covariance, so neither the grid's shape nor its size matters. In [0, 1].
    """
    patches = logits[:, :, prefix_tokens:, prefix_tokens:]
    mean, spread, covariance = _MapStatistics.apply(patches)
    scale = 1 / (spread + 1e-8)
    mean = mean * scale
    covariance = covariance * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    one, other = mean.unsqueeze(-1), mean.unsqueeze(-2)
    luminance = (2 * one * other + _LUMINANCE_CONSTANT) / (one**2 + other**2 + _LUMINANCE_CONSTANT)
    contrast = variance.unsqueeze(-1) + variance.unsqueeze(-2) + _CONTRAST_CONSTANT
    structure = (2 * covariance + _CONTRAST_CONSTANT) / contrast
    loss: Tensor = 1 - (luminance * structure).square().mean()
    return loss


class _MapStatistics(torch.autograd.Function):
    """(B, H, n, K) -> mean above the minimum (B, n, H), max - min (B, n, H), covariance (B, n, H, H).

    Over the K keys of every map. Normalizing a map scales these numbers, so the normalized maps are never
    built; and the derivative writes each element once.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = maps.transpose(1, 2).contiguous()
        low, lowest = maps.min(dim=-1)
        high, highest = maps.max(dim=-1)
        mean = maps.mean(dim=-1)
        centred = maps - mean.unsqueeze(-1)
        covariance = centred @ centred.transpose(-2, -1) / maps.shape[-1]
        ctx.save_for_backward(centred, lowest, highest)
        return mean - low, high - low, covariance

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_spread: Tensor, grad_covariance: Tensor) -> Tensor:
        centred, lowest, highest = ctx.saved_tensors
        both_ways = (grad_covariance + grad_covariance.transpose(-2, -1)) / centred.shape[-1]
        grad = both_ways @ centred
        grad += (grad_mean / centred.shape[-1]).unsqueeze(-1)
        grad.scatter_add_(-1, lowest.unsqueeze(-1), -(grad_mean + grad_spread).unsqueeze(-1))
        grad.scatter_add_(-1, highest.unsqueeze(-1), grad_spread.unsqueeze(-1))
        by_head: Tensor = grad.transpose(1, 2)
        return by_head


def gaussian_patch_entropy(logits: Tensor, rows: Tensor | None = None, *, prefix_tokens: int) -> Tensor:
    """Mean over images of 0.5 (ln 2 pi e + ln v), v the variance of the cosines between attention rows.

    Rows are those of the head-mean logits without prefix tokens. `rows`: (B, m) patch indices, a random
    subset for each image; None takes all. In nats. MaskAQ, released code (L_fb).
    """
    mean = logits.mean(dim=1)[:, prefix_tokens:, prefix_tokens:]
    if rows is not None:
        mean = mean.take_along_dim(rows.unsqueeze(-1), dim=1)
    unit = F.normalize(mean, dim=-1, eps=1e-6)
    cosines = unit @ unit.transpose(-2, -1)
    variance = cosines.flatten(1).var(dim=1, correction=0) + 1e-8
    return (_ENTROPY_OF_UNIT_GAUSSIAN + 0.5 * variance.log()).mean()


def patch_attention(logits: Tensor, *, prefix_tokens: int) -> Tensor:
    """Head-mean logits that every patch receives, (B, n): from all prefix tokens, or without any from all
    queries alike.

    With CLS alone as in MaskAQ. Detection tokens, which look for the objects of an image, stand beside it
    with equal weight: ours.
    """
    if prefix_tokens:
        return logits[:, :, :prefix_tokens, prefix_tokens:].mean(dim=2).mean(dim=1)
    return logits.mean(dim=(1, 2))


def informative_mask(
    attention: Tensor, keep: float, *, drop: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """1.0 at the patches that attention (B, n) ranks highest, 0.0 elsewhere; (B, n), without gradient.

    Keeps k = max(1, floor(keep n)) patches; `drop` > 0 then takes some away at random, which leaves
    max(1, round((1 - drop) k)). `noise` (B, n), uniform in [0, 1), decides which. MaskAQ code.
    """
    attention = attention.detach()
    kept = max(1, int(keep * attention.shape[1]))
    top = attention.topk(kept, dim=1).indices
    if drop > 0:
        if noise is None:
            raise ValueError("a mask with drop > 0 needs noise, uniform in [0, 1) and of attention's shape")
        left = max(1, round((1 - drop) * kept))
        top = top.gather(1, noise[:, :kept].topk(left, dim=1).indices)
    return torch.zeros_like(attention).scatter_(1, top, 1.0)


def masked_alignment(teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of two `patch_attention` (B, n) over the patches of `mask` (B, n). MaskAQ."""
    return (mask * (teacher - student).abs()).sum() / (mask.sum() + 1e-8)
