"""How an image becomes a model's input, as plain facts; knows nothing about models or files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DataConfig:
    """How an image becomes a model's input; the evaluation transform and the synthesis clamp read it."""

    input_size: tuple[int, int, int]
    """(channels, height, width) in pixels."""
    mean: tuple[float, ...]
    """Per channel, in the [0, 1] pixel scale."""
    std: tuple[float, ...]
    """Per channel, in the [0, 1] pixel scale."""
    crop_pct: float = 1.0
    """Side of the centre crop over the shorter side of the resized image."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Interpolation of the resize."""
    shorter_side: int = 0
    """Detectors: the shorter side is resized to so many pixels, unless the longer one would then exceed
    `longer_side`; 0 for classifiers, which crop."""
    longer_side: int = 0
    """Detectors: the most pixels that the longer side may have."""
    pad_multiple: int = 1
    """Detectors: the resized image is padded, right and below, until both sides are multiples of this."""
