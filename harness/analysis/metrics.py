"""Where attention lies, what answers tell, how far models are apart, how ranges fit: functions of tensors.

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
    """Attention that each patch gets from CLS in every head: (B, H, N, N) -> (B, H, n).

    s_hj = A[h, CLS, j] for the patches j; what CLS gives to itself is left out.
    """
    return maps[:, :, 0, prefix_tokens:]


def window_attention(
    maps: Tensor, *, grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]
) -> Tensor:
    """Attention that each token of a Swin layer receives: (B * windows, H, N, N) -> (B, H, rows, columns).

    s_hj = 1/N sum_i A[h, i, j] within j's window (mean over queries), laid back on the layer's `grid` of
    tokens with the cyclic shift undone. Every window holds the mass 1.
    """
    rows, columns = grid
    received = maps.mean(dim=2)
    heads = received.shape[1]
    windows = received.reshape(-1, rows // window[0], columns // window[1], heads, *window)
    laid_out = windows.permute(0, 3, 1, 4, 2, 5).reshape(-1, heads, rows, columns)
    return laid_out.roll(shift, dims=(2, 3))


def on_patches(tokens: Tensor, patch_grid: tuple[int, int]) -> Tensor:
    """Scores of tokens (..., rows, columns) given to every image patch under the token: (..., n)."""
    factors = [patches // size for patches, size in zip(patch_grid, tokens.shape[-2:], strict=True)]
    return tokens.repeat_interleave(factors[0], -2).repeat_interleave(factors[1], -1).flatten(-2)


def concentration(attention: Tensor, share: float) -> Tensor:
    """Attention mass in the strongest `share` of the patches of each head by itself: (B, H, n) -> (H,).

    Every head of every image has its own strongest patches; mean over images. `evenly` is its value for
    attention that lies everywhere alike.
    """
    strongest = attention.topk(_count(share, attention.shape[-1]), dim=-1).values
    return (strongest.sum(dim=-1) / attention.sum(dim=-1)).mean(dim=0)


def evenly(share: float, patches: int) -> float:
    """Attention mass in `share` of the patches when all patches hold as much: k/n."""
    return _count(share, patches) / patches


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
    images: Tensor, scores: Tensor, patch_grid: tuple[int, int], kept: float, *, highest: bool = True
) -> Tensor:
    """Images (B, C, H, W) of which only the `kept` share of patches is left, the rest being 0.

    0 in normalized space is the data set's mean pixel. The k = max(1, round(kept n)) patches are those with
    the highest of the `scores` (B, n), or with the lowest; two halves make the whole image.
    """
    count = _count(kept, scores.shape[1])
    ranked = scores.argsort(dim=1, descending=True, stable=True)
    chosen = ranked[:, :count] if highest else ranked[:, -count:]
    mask = torch.zeros_like(scores).scatter_(1, chosen, 1.0).reshape(-1, 1, *patch_grid)
    height, width = (side // patches for side, patches in zip(images.shape[2:], patch_grid, strict=True))
    return images * mask.repeat_interleave(height, 2).repeat_interleave(width, 3)


def information(logits: Tensor, classes: Tensor) -> Tensor:
    """What answers say of classes, in nats: the terms (B,) of a lower bound whose mean is the estimate.

    InfoNCE over the classes c of the B images with the logits z (B, K) as critic:

        I >= max over b of 1/B sum_i [ b z_i(c_i) - ln 1/B sum_j exp(b z_i(c_j)) ],  b >= 0

    Its expected value lies below I(z; c), and so below that of whatever z was computed from, but for about
    1/(2B) that fitting the one number b adds. It lies far below where the classes are many: no term exceeds
    -ln of the share of its class among the images, their mean not `entropy` <= ln B. With b = 0 nothing is
    said, so the estimate is never negative.
    """
    scores = logits.double()
    own = scores.gather(1, classes.unsqueeze(1)).squeeze(1)
    # The sum over images is one over classes, each as often as it occurs; a class without an image adds 0.
    weights = (classes.bincount(minlength=scores.shape[1]).double() / len(classes)).log()
    best = torch.zeros_like(own)
    for exponent in range(-12, 9):
        sharpness = 2 ** (exponent / 2)
        terms = sharpness * own - (sharpness * scores + weights).logsumexp(dim=1)
        if terms.mean() > best.mean():
            best = terms
    return best


def entropy(classes: Tensor) -> float:
    """Entropy, in nats, of how often each class occurs among (B,)."""
    counts = classes.bincount().double()
    shares = counts[counts > 0] / len(classes)
    return float((shares * -shares.log()).sum())


def paired_difference(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Mean of `one` - `other` (B,) image by image, and half the width of its 95 % interval.

    The interval is that of the normal approximation; nan for a single image.
    """
    difference = one.double() - other.double()
    half = 1.96 * difference.std().item() / math.sqrt(len(difference)) if len(difference) > 1 else math.nan
    return difference.mean().item(), half


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
