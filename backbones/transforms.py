"""Image files and the evaluation transform: shorter side to floor(size / crop_pct), then a centre crop.

The same arithmetic as timm's `create_transform` for evaluation (PIL's resize is antialiased). Threads crop
bytes; `backbones.pixels.normalized` then runs once per batch.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.base import DataConfig

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_MODE = {1: "L", 3: "RGB"}
_SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"})


def is_image(name: str) -> bool:
    """Whether a file name is that of a picture; hidden files are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _SUFFIXES


def is_readable(path: Path) -> bool:
    """Whether an image file can be decoded to its last pixel."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except _broken():
        return False
    return True


def read_image(path: Path, data: DataConfig) -> tuple[Tensor | None, str]:
    """The crop of an image file as (C, H, W) uint8, and the file's colour mode; no crop when it is broken."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return resized_and_cropped(image.convert(pixel_mode(data)), data), image.mode
    except _broken():
        return None, ""


def pixel_mode(data: DataConfig) -> str:
    """PIL's mode for the model's channels: `RGB`, or `L` for one channel."""
    return _MODE[data.input_size[0]]


def resized_and_cropped(image: Image, data: DataConfig) -> Tensor:
    """The crop that the model sees, as (C, H, W) uint8; `image` is of the mode `pixel_mode(data)`."""
    import numpy as np
    import torch
    from PIL.Image import Resampling

    _, height, width = data.input_size
    resample = {"bicubic": Resampling.BICUBIC, "bilinear": Resampling.BILINEAR}[data.interpolation]
    image = image.resize(_resized_size(image.size, min(height, width), data.crop_pct), resample)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels = np.array(image.crop((left, top, left + width, top + height)))
    return torch.from_numpy(pixels).reshape(height, width, -1).permute(2, 0, 1)


def _resized_size(size: tuple[int, int], crop: int, crop_pct: float) -> tuple[int, int]:
    """(width, height) whose shorter side is floor(crop / crop_pct); the longer is truncated."""
    width, height = size
    shorter = math.floor(crop / crop_pct)
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _broken() -> tuple[type[Exception], ...]:
    """What PIL raises on damaged files."""
    from PIL import Image

    return (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
