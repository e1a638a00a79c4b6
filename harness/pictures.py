"""Images in normalized space as a picture grid that a person can look at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from backbones.base import DataConfig

_SMALLEST_SIDE = 96
"""Tiny images are enlarged, pixel by pixel, to at least this side."""
_GAP = 4


def save_grid(images: Tensor, data: DataConfig, path: Path, columns: int | None = None) -> None:
    """Save (n, C, H, W) normalized images as one PNG, row by row; C is 1 or 3."""
    import torch
    from PIL import Image

    mean = torch.tensor(data.mean).view(-1, 1, 1)
    std = torch.tensor(data.std).view(-1, 1, 1)
    pixels = ((images.cpu() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    scale = max(1, -(-_SMALLEST_SIDE // min(pixels.shape[-2:])))
    pixels = pixels.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    count, _, height, width = pixels.shape
    columns = columns or min(count, max(1, math.ceil(math.sqrt(count))))
    rows = -(-count // columns)
    grid = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP), "white")
    for index, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        row, column = divmod(index, columns)
        grid.paste(Image.fromarray(image), (column * (width + _GAP), row * (height + _GAP)))
    grid.save(path, format="PNG")
