"""Radial frequency filters on images, differentiable in the pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def ring(height: int, width: int, outer: float, inner: float = 0.0) -> Tensor:
    """Which frequencies of `torch.fft.rfft2` lie at inner <= radius <= outer: bool (height, width // 2 + 1).

    Radii are fractions of the highest frequency of an axis (half a cycle per pixel): 1 is the largest full
    disc, beyond it lie the corners. `inner` = 0 takes the mean of the image in.
    """
    down = torch.fft.fftfreq(height) / 0.5
    right = torch.fft.rfftfreq(width) / 0.5
    radius = (down.unsqueeze(1).square() + right.square()).sqrt()
    rounding = 1e-6  # a frequency on the rim belongs to the ring
    inside: Tensor = (radius <= outer + rounding) & (radius >= inner - rounding)
    return inside


def filtered(pixels: Tensor, frequencies: Tensor) -> Tensor:
    """Magnitude of the image (..., H, W) that the `frequencies` of `ring` alone make up. FDD, released code.

    The magnitude folds negative values up: it changes an image only where the filter takes its mean away.
    """
    spectrum = torch.fft.rfft2(pixels) * frequencies
    magnitude: Tensor = torch.fft.irfft2(spectrum, s=pixels.shape[-2:]).abs()
    return magnitude
