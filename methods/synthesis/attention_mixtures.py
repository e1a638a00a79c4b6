"""Random structure for attention to follow: mixtures of Gaussians over the patch grid. SARDFQ's APA."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

_REFERENCE_SIDE = 14
"""Patches per side for which the widths are chosen."""
_WIDTHS = (1.0, 3.0)
"""Range of the standard deviation, in patches of that grid."""


def random_mixtures(
    count: tuple[int, ...], grid: tuple[int, int], *, components: int, generator: Generator
) -> Tensor:
    """`count` independent mixtures on a grid (h, w) of patches: (*count, h * w), each sums to 1.

    Of 1 to `components` isotropic Gaussians, as many with equal probability; centres uniform over the grid,
    standard deviations uniform, weights Dirichlet(1).
    """

    def uniform(*last: int) -> Tensor:
        return torch.rand(*count, *last, generator=generator)

    height, width = grid
    used = torch.randint(1, components + 1, (*count, 1), generator=generator)
    # Dirichlet(1) is a set of exponential numbers over their sum.
    weights = -uniform(components).clamp(min=1e-12).log() * (torch.arange(components) < used)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    low, high = (share * min(grid) / _REFERENCE_SIDE for share in _WIDTHS)
    spread = low + (high - low) * uniform(components, 1)
    centres = uniform(components, 2) * torch.tensor([height, width])
    down = _gaussian(torch.arange(height) + 0.5, centres[..., :1], spread)
    right = _gaussian(torch.arange(width) + 0.5, centres[..., 1:], spread)
    peaks = weights.unsqueeze(-1) / spread.square()  # every component has unit mass on an endless grid
    density = (down * peaks).transpose(-2, -1) @ right
    return (density / density.sum(dim=(-2, -1), keepdim=True)).flatten(-2)


def received_attention(maps: Tensor, *, prefix_tokens: int) -> Tensor:
    """Attention (B, H, N, N) that the patches get, (B, H, n): from CLS, or without one the mean of all."""
    return maps[:, :, 0, prefix_tokens:] if prefix_tokens else maps.mean(dim=2)


def mixture_loss(attention: Tensor, mixtures: Tensor) -> Tensor:
    """Mean squared difference of attention (B, H, n) and mixtures (B, H, n) with the attention's own mass.

    The mass is not differentiated: CLS may attend to itself as it likes.
    """
    return F.mse_loss(attention, mixtures * attention.detach().sum(dim=-1, keepdim=True))


def _gaussian(places: Tensor, centres: Tensor, spread: Tensor) -> Tensor:
    return torch.exp(-0.5 * ((places - centres) / spread).square())
