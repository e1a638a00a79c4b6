"""Crops of images, enlarged to the whole size, to be optimised as images of their own. SARDFQ's MSR."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

_QUADRANTS = 4
_SMALLEST_SHARE = 80 / 224
"""Side of the smallest crop over the shorter side of the image; the largest fills a quadrant."""


class Crops(NamedTuple):
    """M squares in a batch of images, in pixels; each tensor is int64 (M,)."""

    owner: Tensor
    """Index of the image."""
    top: Tensor
    left: Tensor
    side: Tensor

    def to(self, device: torch.device) -> Crops:
        """The same squares on another device."""
        return Crops(*(tensor.to(device) for tensor in self))


def draw_crops(images: int, height: int, width: int, *, most: int, generator: Generator) -> Crops:
    """1 to `most` (at most 4) squares for every image, none for `most` = 0; those of one image are disjoint.

    Each lies in a quadrant of its own, anywhere in it.
    """
    if not 0 <= most <= _QUADRANTS:
        raise ValueError(f"an image has room for 0 to {_QUADRANTS} crops, not {most}")
    counts = torch.randint(min(1, most), most + 1, (images, 1), generator=generator)
    order = torch.rand(images, _QUADRANTS, generator=generator).argsort(dim=1)
    taken = torch.arange(_QUADRANTS) < counts
    owner, quadrant = taken.nonzero()[:, 0], order[taken]
    room = min(height, width) // 2
    smallest = min(room, round(_SMALLEST_SHARE * min(height, width)))
    side = torch.randint(smallest, room + 1, owner.shape, generator=generator)

    def offset(length: int, second: Tensor) -> Tensor:
        slack = length // 2 - side + 1
        within = (torch.rand(owner.shape, generator=generator) * slack).long()
        return within + second * (length - length // 2)

    return Crops(owner, offset(height, quadrant // 2), offset(width, quadrant % 2), side)


def enlarged(images: Tensor, crops: Crops) -> Tensor:
    """The crops of (B, C, H, W), each resized bilinearly to H x W: (M, C, H, W).

    Gradients reach the crop's own pixels only. Two matrix products per crop, so the derivative adds in a
    fixed order on every device, which that of `grid_sample` does not.
    """
    down = _resizing(crops.top, crops.side, images.shape[-2], images.dtype)
    right = _resizing(crops.left, crops.side, images.shape[-1], images.dtype)
    return down.unsqueeze(1) @ images[crops.owner] @ right.transpose(-2, -1).unsqueeze(1)


def _resizing(start: Tensor, side: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Matrices (M, length, length) that stretch [start, start + side) over the whole length."""
    steps = torch.arange(length, device=start.device, dtype=dtype)
    start, side = start.to(dtype).unsqueeze(1), side.to(dtype).unsqueeze(1)
    # Pixel centres; beyond the crop's first and last centre its edge pixels go on.
    within = ((steps + 0.5) * side / length - 0.5).clamp(min=0).minimum(side - 1)
    return (1 - ((start + within).unsqueeze(-1) - steps).abs()).clamp(min=0)
