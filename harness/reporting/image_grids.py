"""Images in normalized space as pictures that a person can look at: grids, boxes, captions.

Every PNG is written whole or not at all.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageDraw

from backbones.base import DataConfig
from backbones.preprocessing.pixels import denormalized
from harness.store.files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST_SIDE = 96
"""Tiny images are enlarged, pixel by pixel, to at least this side."""
_GAP = 4
_CAPTION = 16
"""Height of a line of text in pixels."""
_COLOURS = (
    "#e6194b",
    "#3cb44b",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#008080",
    "#9a6324",
    "#800000",
    "#000075",
    "#808000",
)


class Box(NamedTuple):
    """A rectangle to draw."""

    corners: tuple[float, float, float, float]
    """Left, top, right, bottom in shares of the picture."""
    label: int
    """Boxes of one label have one colour."""
    text: str


def save_grid(images: Tensor, data: DataConfig, path: Path, columns: int | None = None) -> None:
    """Save (n, C, H, W) normalized images as one PNG, row by row; C is 1 or 3."""
    pictures = [enlarged(picture, _SMALLEST_SIDE) for picture in pictures_of(images, data)]
    columns = columns or min(len(pictures), max(1, math.ceil(math.sqrt(len(pictures)))))
    save_rows([pictures[start : start + columns] for start in range(0, len(pictures), columns)], path)


def pictures_of(images: Tensor, data: DataConfig) -> list[Image.Image]:
    """The RGB pictures of (n, C, H, W) normalized images."""
    return from_pixels(denormalized(images.cpu(), data).clamp(0, 1))


def from_pixels(images: Tensor) -> list[Image.Image]:
    """The RGB pictures of (n, C, H, W) pixels, uint8 or float in [0, 1]; C is 1 or 3."""
    import torch

    if images.is_floating_point():
        images = (images * 255).round().to(torch.uint8)
    # PIL takes rows of RGB pixels; one channel is repeated.
    colours = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    return [Image.fromarray(picture) for picture in colours.contiguous().numpy()]


def enlarged(picture: Image.Image, side: int) -> Image.Image:
    """The picture, pixel by pixel so many times as large that its shorter side is at least `side`."""
    scale = max(1, -(-side // min(picture.size)))
    return picture.resize((picture.width * scale, picture.height * scale), resample=Image.Resampling.NEAREST)


def with_boxes(picture: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """A copy with rectangles, each with its text at the upper left corner."""
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    for box in boxes:
        colour = _COLOURS[box.label % len(_COLOURS)]
        left, top, right, bottom = (
            share * side for share, side in zip(box.corners, picture.size * 2, strict=True)
        )
        # A quantized model's boxes may have no extent at all; PIL refuses reversed corners.
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=2)
        place = (max(0.0, min(left, picture.width - 8)), max(0.0, min(top, picture.height - 12)))
        pen.rectangle(pen.textbbox(place, box.text), fill="white")
        pen.text(place, box.text, fill=colour)
    return drawn


def save_rows(rows: Sequence[Sequence[Image.Image]], path: Path, captions: Sequence[str] = ()) -> None:
    """Save rows of pictures as one PNG, columns aligned, with a caption over each column where given."""
    columns = max(len(row) for row in rows)
    widths = [max(row[i].width for row in rows if i < len(row)) for i in range(columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    head = _CAPTION if captions else 0
    size = (sum(widths) + _GAP * (columns - 1), head + sum(heights) + _GAP * (len(rows) - 1))
    sheet = Image.new("RGB", size, "white")
    lefts = [sum(widths[:i]) + _GAP * i for i in range(columns)]
    for left, caption in zip(lefts, captions, strict=False):
        ImageDraw.Draw(sheet).text((left + 2, 2), caption, fill="black")
    top = head
    for row, height in zip(rows, heights, strict=True):
        for left, picture in zip(lefts, row, strict=False):
            sheet.paste(picture, (left, top))
        top += height + _GAP
    png = io.BytesIO()
    sheet.save(png, format="PNG")
    write_bytes(path, png.getvalue())
