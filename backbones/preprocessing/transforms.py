"""Image files and the evaluation transforms.

    classifiers   shorter side to floor(size / crop_pct), then a centre crop: the same arithmetic as timm's
                  `create_transform` for evaluation
    detectors     shorter side to `shorter_side`, less where the longer one would exceed `longer_side`; the
                  ratio stays, and zeros after normalization fill the canvas to the right and below

PIL's resize is antialiased. Threads resize bytes; `pixels.normalized` then runs once per batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.preprocessing.data_config import DataConfig
from backbones.preprocessing.picture_files import in_bytes

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_MODE = {1: "L", 3: "RGB"}


def is_readable(path: Path) -> bool:
    """Whether an image file can be decoded to its last pixel, and its values mean something."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return in_bytes(image) is not None
    except _broken():
        return False


def read_image(path: Path, data: DataConfig) -> tuple[Tensor | None, str]:
    """The crop of an image file as (C, H, W) uint8, and the file's colour mode.

    There is no crop and no mode when the file is broken, and no crop where the range of its mode is unknown.
    """
    return _read(path, data, resized_and_cropped)


def read_resized(path: Path, data: DataConfig) -> tuple[Tensor | None, str]:
    """A whole image file at a detector's size as (C, h, w) uint8, and its colour mode; none when broken."""
    return _read(path, data, resized)


def read_fitted(path: Path, data: DataConfig) -> tuple[Tensor | None, str]:
    """A whole image file that fits inside `data.input_size`, (C, h, w) uint8, and its colour mode."""
    return _read(path, data, fitted)


def pixel_mode(data: DataConfig) -> str:
    """PIL's mode for the model's channels: `RGB`, or `L` for one channel."""
    return _MODE[data.input_size[0]]


def resized_and_cropped(image: Image, data: DataConfig) -> Tensor:
    """The crop that the model sees, as (C, H, W) uint8; `image` is of the mode `pixel_mode(data)`."""
    _, height, width = data.input_size
    image = _resize(image, _resized_size(image.size, min(height, width), data.crop_pct), data)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return _tensor(image.crop((left, top, left + width, top + height)))


def resized(image: Image, data: DataConfig) -> Tensor:
    """The whole image at the detector's `detector_size`, as (C, h, w) uint8."""
    return _tensor(_resize(image, detector_size(image.size, data), data))


def fitted(image: Image, data: DataConfig) -> Tensor:
    """The whole image as large as it fits inside `data.input_size`, as (C, h, w) uint8."""
    return _tensor(_resize(image, fitted_size(image.size, data), data))


def detector_size(size: tuple[int, int], data: DataConfig) -> tuple[int, int]:
    """(width, height) of the resized image: rounded, both sides by one factor."""
    factor = min(data.shorter_side / min(size), data.longer_side / max(size))
    return _scaled(size, factor)


def fitted_size(size: tuple[int, int], data: DataConfig) -> tuple[int, int]:
    """(width, height) of the largest image of that ratio inside `data.input_size`."""
    _, height, width = data.input_size
    return _scaled(size, min(width / size[0], height / size[1]))


def canvas_size(size: tuple[int, int], data: DataConfig) -> tuple[int, int]:
    """(width, height) of the canvas: each side of the resized image up to the next `pad_multiple`."""
    step = data.pad_multiple
    return -(-size[0] // step) * step, -(-size[1] // step) * step


def on_canvas(image: Tensor, canvas: tuple[int, int]) -> Tensor:
    """A normalized image (C, h, w) with zeros to the right and below, up to `canvas` (width, height)."""
    from torch.nn.functional import pad

    return pad(image, (0, canvas[0] - image.shape[-1], 0, canvas[1] - image.shape[-2]))


def to_canvas(boxes: Tensor, image: tuple[int, int], canvas: tuple[int, int]) -> Tensor:
    """Corner boxes (..., 4) from shares of an image to shares of the canvas it lies on, sizes in pixels."""
    return boxes * _corner_factors(boxes, image[0] / canvas[0], image[1] / canvas[1])


def to_image(boxes: Tensor, image: tuple[int, int], canvas: tuple[int, int]) -> Tensor:
    """The inverse of `to_canvas`; a box that reaches into the padding exceeds 1."""
    return boxes * _corner_factors(boxes, canvas[0] / image[0], canvas[1] / image[1])


def _resized_size(size: tuple[int, int], crop: int, crop_pct: float) -> tuple[int, int]:
    """(width, height) whose shorter side is floor(crop / crop_pct); the longer is truncated."""
    width, height = size
    shorter = math.floor(crop / crop_pct)
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _resize(image: Image, size: tuple[int, int], data: DataConfig) -> Image:
    from PIL.Image import Resampling

    resample = {"bicubic": Resampling.BICUBIC, "bilinear": Resampling.BILINEAR}[data.interpolation]
    return image.resize(size, resample)


def _tensor(image: Image) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image)).reshape(image.height, image.width, -1).permute(2, 0, 1)


def _corner_factors(boxes: Tensor, horizontal: float, vertical: float) -> Tensor:
    return boxes.new_tensor([horizontal, vertical, horizontal, vertical])


def _read(
    path: Path, data: DataConfig, transform: Callable[[Image, DataConfig], Tensor]
) -> tuple[Tensor | None, str]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            ranged = in_bytes(image)
            if ranged is None:
                return None, image.mode
            return transform(ranged.convert(pixel_mode(data)), data), image.mode
    except _broken():
        return None, ""


def _broken() -> tuple[type[Exception], ...]:
    """What PIL raises on damaged files."""
    from PIL import Image

    return (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
