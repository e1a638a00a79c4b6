"""Random views of a batch, differentiable in the images (B, C, H, W).

Draws come from a CPU generator and are small, so that a seed gives the same views on every device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor


def jitter_limit(limit_at_224: int, images: Tensor) -> int:
    """A shift limit given in pixels of 224-pixel images, scaled to these images; at least one, 0 for 0."""
    return max(min(1, limit_at_224), round(limit_at_224 * min(images.shape[-2:]) / 224))


class Placement(NamedTuple):
    """How a view lies on its images: shifted cyclically by whole pixels, then perhaps mirrored."""

    down: int
    right: int
    mirrored: bool = False
    """Left to right."""

    def of(self, images: Tensor) -> Tensor:
        """The view."""
        rolled = images.roll((self.down, self.right), dims=(-2, -1))
        return rolled.flip(-1) if self.mirrored else rolled


def random_placement(
    limit: int, *, generator: Generator, same_offset: bool = False, flip: bool = True
) -> Placement:
    """Shifts uniform in [-limit, limit], per axis or alike; with `flip` mirrored with probability 0.5."""
    down, right = torch.randint(-limit, limit + 1, (2,), generator=generator).tolist()
    mirrored = flip and bool(torch.rand((), generator=generator) < 0.5)
    return Placement(down, down if same_offset else right, mirrored)


def random_roll(images: Tensor, limit: int, *, generator: Generator) -> Tensor:
    """Shift the whole batch cyclically by whole pixels, uniform in [-limit, limit] per axis."""
    return random_placement(limit, generator=generator, flip=False).of(images)


def random_flip(images: Tensor, *, generator: Generator) -> Tensor:
    """Mirror the whole batch left to right with probability 0.5."""
    return images.flip(-1) if torch.rand((), generator=generator) < 0.5 else images


def random_colour_shift(images: Tensor, amplitude: float, *, generator: Generator) -> Tensor:
    """Add one N(0, amplitude^2) number to every channel of every image."""
    shift = torch.randn(*images.shape[:2], 1, 1, generator=generator) * amplitude
    return images + shift.to(images.device)


def random_colour_jitter(images: Tensor, *, generator: Generator) -> Tensor:
    """(v - m) / s with m ~ U(-1, 1) and ln s ~ U(-1, 1) for every channel of every image."""
    drawn = torch.rand(2, *images.shape[:2], 1, 1, generator=generator) * 2 - 1
    shift, log_scale = drawn.to(images.device)
    jittered: Tensor = (images - shift) / log_scale.exp()
    return jittered
