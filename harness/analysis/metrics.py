"""Where attention lies, how far two models' attention is apart, how ranges fit: functions of tensors.

Notation: B images, n patches, N tokens, H heads, L layers, softmax attention maps A whose rows sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Range = tuple[float, float]
"""Lowest and highest value of an activation."""
_NARROWEST = 1e-12
"""Ranges narrower than this are taken as this wide, so that a ratio is always a number."""


def cls_attention(maps: Tensor, prefix_tokens: int) -> Tensor:
    """Attention that each patch gets from CLS, mean over heads: (B, H, N, N) -> (B, n).

    s_j = 1/H sum_h A[h, CLS, j] for the patches j; what CLS gives to itself is left out.
    """
    return maps[:, :, 0, prefix_tokens:].mean(dim=1)


def window_attention(
    maps: Tensor, *, grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]
) -> Tensor:
    """Attention that each token of a Swin layer receives: (B * windows, H, N, N) -> (B, rows, columns).

    s_j = 1/(H N) sum_h sum_i A[h, i, j] within j's window (mean over heads and queries), laid back on the
    layer's `grid` of tokens with the cyclic shift undone. Every window holds the mass 1.
    """
    rows, columns = grid
    received = maps.mean(dim=(1, 2))
    windows = received.reshape(-1, rows // window[0], columns // window[1], *window)
    return windows.transpose(2, 3).reshape(-1, rows, columns).roll(shift, dims=(1, 2))


def on_patches(tokens: Tensor, patch_grid: tuple[int, int]) -> Tensor:
    """Scores of tokens (B, rows, columns) given to every image patch under the token: (B, n)."""
    factors = [patches // size for patches, size in zip(patch_grid, tokens.shape[1:], strict=True)]
    return tokens.repeat_interleave(factors[0], 1).repeat_interleave(factors[1], 2).flatten(1)


def patch_shares(layers: Sequence[Tensor]) -> Tensor:
    """Share of the attention mass that each patch holds over all layers: L x (B, n) -> (B, n), rows sum to 1.

    p_j = sum_l s_lj / sum_l sum_i s_li. Swin's windows hold equally many tokens and mass 1 each, so that
    its layers count alike.
    """
    total = torch.stack(list(layers)).sum(dim=0)
    return total / total.sum(dim=1, keepdim=True)


def mass_curve(shares: Tensor) -> Tensor:
    """Share of the attention mass held by the k strongest patches, mean over images: (B, n) -> (n,).

    c_k = 1/B sum_b sum of the k largest p_bj, for k = 1..n; uniform attention gives k/n.
    """
    return shares.sort(dim=1, descending=True).values.cumsum(dim=1).mean(dim=0)


def patches_for(curve: Tensor, mass: float) -> float:
    """Smallest share k/n of the patches that holds at least `mass` of the attention, of a `mass_curve`."""
    enough = (curve >= mass - 1e-6).nonzero()
    return (int(enough[0]) + 1) / len(curve) if len(enough) else 1.0


def mass_of(curve: Tensor, share: float) -> float:
    """Attention mass of the strongest `share` of the patches: c_k with k = max(1, round(share n))."""
    return float(curve[_count(share, len(curve)) - 1])


def keep_patches(
    images: Tensor, shares: Tensor, patch_grid: tuple[int, int], kept: float, *, informative: bool
) -> Tensor:
    """Images (B, C, H, W) of which only the `kept` share of patches is left, the rest being 0.

    0 in normalized space is the data set's mean pixel. The k = max(1, round(kept n)) patches are those that
    `shares` (B, n) ranks highest (informative) or lowest (background); two halves make the whole image.
    """
    count = _count(kept, shares.shape[1])
    ranked = shares.argsort(dim=1, descending=True, stable=True)
    chosen = ranked[:, :count] if informative else ranked[:, -count:]
    mask = torch.zeros_like(shares).scatter_(1, chosen, 1.0).reshape(-1, 1, *patch_grid)
    height, width = (side // patches for side, patches in zip(images.shape[2:], patch_grid, strict=True))
    return images * mask.repeat_interleave(height, 2).repeat_interleave(width, 3)


def attention_distance(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """How far Q's attention is from P's, per image and layer: L x (B or B * windows, H, N, N) -> (L,).

    Total variation d = 1/2 sum_j |A_P[h, i, j] - A_Q[h, i, j]|, mean over images, heads and queries; 0 for
    equal maps, 1 for maps on disjoint keys.
    """
    return torch.stack([(p - q).abs().sum(dim=-1).mean() / 2 for p, q in zip(teacher, student, strict=True)])


def range_ratios(ranges: Mapping[str, Range], reference: Mapping[str, Range]) -> dict[str, float]:
    """Width of each range over the width of the reference's: above 1 wastes levels, below 1 clips."""
    return {point: _width(ranges[point]) / _width(reference[point]) for point in reference}


def worst_ratio(ratios: Mapping[str, float]) -> tuple[str, float]:
    """The point whose ratio is furthest from 1 in either direction (largest |ln r|), with its ratio."""
    return max(ratios.items(), key=lambda item: abs(math.log(item[1])))


def _width(bounds: Range) -> float:
    return max(bounds[1] - bounds[0], _NARROWEST)


def _count(share: float, patches: int) -> int:
    return max(1, round(share * patches))
