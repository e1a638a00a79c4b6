"""Foreground and background of images by a box of each, and D4C's augmentation of foregrounds.

Source: Keio-CSG/D4C (CVPR 2026 Findings; arXiv 2511.15411), released code. Places are in the units of
`grid_sample`: an image spans -1 to 1 in both axes. Everything is differentiable in the images (B, C, H, W).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

_AREA = (0.4, 0.7)
_NOISE = 0.1
_DEGREES, _SCALE, _SHIFT, _COLOUR = 15.0, 0.05, 0.05, 0.4
_BLURRED = _ERASED = 0.3
_ERASED_SIDE = 0.2


class Boxes(NamedTuple):
    """A box of the image's aspect ratio for each image; all (B,)."""

    side: Tensor
    """Share of the image's side."""
    x: Tensor
    """Where its centre lies."""
    y: Tensor

    @classmethod
    def draw(cls, count: int, device: torch.device, *, generator: Generator) -> Boxes:
        """Area share uniform in 0.4 to 0.7, and a uniform place inside the image."""
        area, x, y = torch.rand(3, count, generator=generator).to(device)
        side = (_AREA[0] + (_AREA[1] - _AREA[0]) * area).sqrt()
        return cls(side, (2 * x - 1) * (1 - side), (2 * y - 1) * (1 - side))

    def foreground(self, images: Tensor) -> Tensor:
        """The boxes, resized to the images' size (bilinear)."""
        none = torch.zeros_like(self.side)
        rows = (self.side, none, self.x), (none, self.side, self.y)
        return _sampled(images, torch.stack([torch.stack(row, dim=1) for row in rows], dim=1))

    def background(self, images: Tensor, *, generator: Generator) -> Tensor:
        """The images with 0 in their boxes, and noise of deviation 0.1 over everything."""
        height, width = images.shape[-2:]
        inside = _near(self.y, self.side, height)[:, :, None] & _near(self.x, self.side, width)[:, None, :]
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return images * ~inside[:, None] + _NOISE * noise


def augmented(images: Tensor, *, generator: Generator) -> Tensor:
    """Flip, turn, scale, shift, recolour, blur and erase a square, drawn for every image by itself."""
    count = len(images)
    drawn = torch.rand(12, count, generator=generator).to(images.device)
    flip = torch.where(drawn[0] < 0.5, -1.0, 1.0)
    angle = math.radians(_DEGREES) * (2 * drawn[1] - 1)
    scale = 1 + _SCALE * (2 * drawn[2] - 1)
    right, down = _SHIFT * (2 * drawn[3:5] - 1)
    rows = (
        (flip * scale * angle.cos(), -scale * angle.sin(), right),
        (flip * scale * angle.sin(), scale * angle.cos(), down),
    )
    view = _sampled(images, torch.stack([torch.stack(row, dim=1) for row in rows], dim=1))
    contrast, brightness, saturation = (1 + _COLOUR * (2 * drawn[5:8] - 1))[..., None, None, None]
    view = view * (contrast * brightness)
    grey = view.mean(dim=1, keepdim=True)
    view = grey + saturation * (view - grey)
    view = torch.where((drawn[8] < _BLURRED)[:, None, None, None], _binomial_blur(view), view)
    side = torch.full_like(drawn[9], _ERASED_SIDE)
    x, y = (2 * drawn[9:11] - 1) * (1 - _ERASED_SIDE)
    erased = _near(y, side, view.shape[-2])[:, :, None] & _near(x, side, view.shape[-1])[:, None, :]
    return view * ~(erased & (drawn[11] < _ERASED)[:, None, None])[:, None]


def _near(centre: Tensor, side: Tensor, pixels: int) -> Tensor:
    """(B, pixels): which pixels have their middle within `side` of the centre."""
    middles = (torch.arange(pixels, device=centre.device) + 0.5) * (2 / pixels) - 1
    return (middles - centre[:, None]).abs() <= side[:, None]


def _sampled(images: Tensor, affine: Tensor) -> Tensor:
    """The images at the places that (B, 2, 3) maps theirs to; 0 outside of them."""
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _binomial_blur(images: Tensor) -> Tensor:
    """Weights 1/4, 1/2, 1/4 along both axes, edges repeated."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = (padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]) / 4
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
