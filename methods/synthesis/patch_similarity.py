"""Patch-similarity entropy, the prior of PSAQ-ViT: how diverse the patches of an image look to attention.

The kernel density behind it is the hot spot of that method. Here it is a function with a hand-written
derivative that counts, per similarity, only the grid points near enough to matter.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_NEGLIGIBLE = 1e-10
"""Kernel values below this share of the peak are left out. With ten points that moves a density of order
1 by less than 4e-8, far below the 1e-4 that the entropy adds to it."""
_REACH = math.sqrt(-2 * math.log(_NEGLIGIBLE))
"""Distance, in bandwidths, beyond which the kernel is negligible."""


class SimilarityDensity(NamedTuple):
    """Density of an image's patch similarities on an equally spaced grid from `lowest` to 1."""

    density: Tensor
    """(B, points), per unit of cosine similarity."""
    lowest: Tensor
    """() lowest similarity in the batch; carries no gradient, as in the reference code."""


def patch_similarity_entropy(
    outputs: Tensor, images: int, *, skip_tokens: int, points: int = 10, bandwidth: float = 0.01
) -> Tensor:
    """Differential entropy of the patches' cosine similarities in one layer, in nats, mean over images.

    H = -integral p ln p by the trapezoid rule, p being `similarity_density` + 1e-4. `outputs` are attn @ v:
    (B, H, N, d) for ViT, (B * windows, H, N, d) for Swin; similarities are taken within a window and pooled
    over the windows of an image. The first `skip_tokens` tokens are left out. PSAQ-ViT, released code.
    """
    rows = F.normalize(outputs.mean(dim=1)[:, skip_tokens:], dim=-1)
    density, lowest = similarity_density(
        torch.unflatten(rows, 0, (images, -1)), points=points, bandwidth=bandwidth
    )
    p = density + 1e-4
    integrand = -p * p.log()
    inner_and_half_ends = integrand.sum(dim=1) - (integrand[:, 0] + integrand[:, -1]) / 2
    return (inner_and_half_ends * (1 - lowest) / (points - 1)).mean()


def similarity_density(rows: Tensor, *, points: int, bandwidth: float) -> SimilarityDensity:
    """Gaussian kernel density of all n^2 cosine similarities of an image.

    `rows`: (B, groups, n, d) of unit length; similarities are taken within a group. The density is
    differentiable in `rows`; the grid is not.
    """
    return SimilarityDensity(*_SimilarityDensity.apply(rows, points, bandwidth))


class _SimilarityDensity(torch.autograd.Function):
    """Works on the upper triangle: similarities are symmetric, and each patch is like itself (1)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, points: int, bandwidth: float) -> tuple[Tensor, Tensor]:
        images, groups, n, _ = rows.shape
        similarities = (rows @ rows.transpose(-2, -1)).flatten(-2)
        upper = _upper_triangle(n, rows.device)
        values = similarities.index_select(-1, upper).flatten(1)
        lowest = values.amin().clamp(max=1.0)
        spacing = (1 - lowest) / (points - 1)
        neighbours = _neighbours(spacing, points, bandwidth)
        first, offset = _nearest(values, lowest, spacing, points, neighbours)
        sharpness = -0.5 * (spacing / bandwidth) ** 2

        sums = values.new_zeros(images, points)
        for step in range(neighbours):
            kernel = (offset - step).square_().mul_(sharpness).exp_()
            if neighbours == points:  # every value counts everywhere: no atomic adds, so the order is fixed
                sums[:, step] = kernel.sum(dim=1)
            else:
                sums.scatter_add_(1, first + step, kernel)
        to_one = torch.arange(points - 1, -1, -1, device=rows.device, dtype=rows.dtype) * spacing
        itself = groups * n * torch.exp(-0.5 * (to_one / bandwidth) ** 2)
        scale = 1 / (groups * n * n * bandwidth * math.sqrt(2 * math.pi))

        ctx.save_for_backward(rows, first, offset, spacing, sharpness)
        ctx.neighbours, ctx.scale, ctx.bandwidth = neighbours, scale, bandwidth
        ctx.mark_non_differentiable(lowest)
        return (2 * sums + itself) * scale, lowest

    @staticmethod
    def backward(ctx: Any, grad_density: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        rows, first, offset, spacing, sharpness = ctx.saved_tensors
        images, groups, n, _ = rows.shape
        # d kernel / d value = -(value - grid point) / bandwidth^2 * kernel; each pair stands for two cells.
        weight = grad_density * (-2 * ctx.scale / ctx.bandwidth**2) * spacing
        grad_values = torch.zeros_like(offset)
        for step in range(ctx.neighbours):
            distance = offset - step
            slope = distance.square().mul_(sharpness).exp_().mul_(distance)
            everywhere = ctx.neighbours == weight.shape[1]
            at = weight[:, step : step + 1] if everywhere else weight.gather(1, first + step)
            grad_values.addcmul_(slope, at)
        grad = rows.new_zeros(images, groups, n * n)
        grad.index_copy_(2, _upper_triangle(n, rows.device), torch.unflatten(grad_values, 1, (groups, -1)))
        grad = torch.unflatten(grad, -1, (n, n))
        return grad @ rows + grad.transpose(-2, -1) @ rows, None, None


def _upper_triangle(n: int, device: torch.device) -> Tensor:
    """Flat positions of the strict upper triangle of an (n, n) matrix."""
    row, column = torch.triu_indices(n, n, offset=1, device=device)
    positions: Tensor = row * n + column
    return positions


def _neighbours(spacing: Tensor, points: int, bandwidth: float) -> int:
    """How many consecutive grid points around a value count.

    With k of them the nearest one left out lies at least k / 2 spacings away, so k spacings must cover twice
    the kernel's reach. On an accelerator all points count: to ask for the spacing would stall it.
    """
    if spacing.device.type != "cpu":
        return points
    width, step = 2 * _REACH * bandwidth, float(spacing)
    return math.ceil(width / step) if step * points > width else points


def _nearest(
    values: Tensor, lowest: Tensor, spacing: Tensor, points: int, neighbours: int
) -> tuple[Tensor, Tensor]:
    """First of the `neighbours` grid points around each value, and the value's offset from it in spacings."""
    offset = (values - lowest).div_(spacing.clamp(min=torch.finfo(values.dtype).tiny))
    first = (offset - (neighbours - 1) / 2).round_().clamp_(0, points - neighbours)
    return first.long(), offset.sub_(first)
