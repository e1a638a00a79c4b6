"""The training view of a batch: one random crop, flip, recolouring and blur shared by all its images.

Source: MaskAQ's released training loop (maskaq spec 4), which draws the parameters of torchvision's
RandomResizedCrop, ColorJitter, RandomGrayscale and GaussianBlur once per batch. Draws come from a CPU
generator. Colour jitter works on pixels in [0, 1]; grayscale and blur, as released, on normalized values.
Hue, saturation and grayscale exist for three channels alone; the blur shrinks with the image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms import functional as pixels

from backbones.base import Backbone
from backbones.preprocessing.pixels import denormalized, normalized
from methods.synthesis.augmentations import random_flip

_BLUR_TAPS_AT_224 = 23
_BRIGHTNESS = _CONTRAST = _SATURATION = 0.8
_HUE = 0.2


def training_view(
    images: Tensor, teacher: Backbone, *, crop_scale_min: float, generator: Generator
) -> Tensor:
    """Crop, flip, recolour and blur normalized images (B, C, H, W); the shape stays.

    `crop_scale_min` is the smallest crop's share of the image area.
    """
    view = random_flip(random_resized_crop(images, crop_scale_min, generator=generator), generator=generator)
    if _uniform(0, 1, generator) < 0.8:
        jittered = colour_jitter(denormalized(view, teacher.data), generator=generator)
        view = normalized(jittered, teacher.data)
    if _uniform(0, 1, generator) < 0.2 and images.shape[1] == 3:
        view = pixels.rgb_to_grayscale(view, num_output_channels=3)
    shrink = min(images.shape[-2:]) / 224
    return gaussian_blur(view, _odd(_BLUR_TAPS_AT_224 * shrink), _uniform(0.1, 2.0, generator) * shrink)


def random_resized_crop(images: Tensor, scale_min: float, *, generator: Generator) -> Tensor:
    """A box of area share U(scale_min, 1) and aspect ratio 3/4 to 4/3, resized back; same for all images."""
    height, width = images.shape[-2:]
    box = _crop_box(height, width, scale_min, generator)
    resized: Tensor = pixels.resized_crop(images, *box, [height, width], antialias=True)
    return resized


def colour_jitter(images: Tensor, *, generator: Generator) -> Tensor:
    """Brightness, contrast, saturation and hue in random order, on pixels in [0, 1]."""
    brightness = _uniform(1 - _BRIGHTNESS, 1 + _BRIGHTNESS, generator)
    contrast = _uniform(1 - _CONTRAST, 1 + _CONTRAST, generator)
    saturation = _uniform(1 - _SATURATION, 1 + _SATURATION, generator)
    hue = _uniform(-_HUE, _HUE, generator)
    steps = [
        lambda x: pixels.adjust_brightness(x, brightness),
        lambda x: pixels.adjust_contrast(x, contrast),
        lambda x: pixels.adjust_saturation(x, saturation),
        lambda x: pixels.adjust_hue(x, hue),
    ]
    for index in torch.randperm(4, generator=generator).tolist():
        if images.shape[1] == 3 or index < 2:
            images = steps[index](images)
    return images


def gaussian_blur(images: Tensor, taps: int, sigma: float) -> Tensor:
    """Convolve with a Gaussian of `sigma` pixels cut at `taps` (odd), edges reflected.

    Two passes of one dimension: torchvision's single one costs `taps` / 2 times as much.
    """
    channels, half = images.shape[1], taps // 2
    offsets = torch.arange(-half, half + 1, dtype=images.dtype, device=images.device)
    kernel = torch.softmax(-0.5 * (offsets / sigma) ** 2, dim=0).expand(channels, 1, 1, taps)
    padded = F.pad(images, (half, half, half, half), mode="reflect")
    rows = F.conv2d(padded, kernel, groups=channels)
    return F.conv2d(rows, kernel.transpose(-2, -1), groups=channels)


def _crop_box(height: int, width: int, scale_min: float, generator: Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) as torchvision draws it: ten tries, then the whole image."""
    for _ in range(10):
        area = height * width * _uniform(scale_min, 1.0, generator)
        ratio = math.exp(_uniform(math.log(3 / 4), math.log(4 / 3), generator))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(height - h + 1, (), generator=generator))
            left = int(torch.randint(width - w + 1, (), generator=generator))
            return top, left, h, w
    return 0, 0, height, width


def _odd(taps: float) -> int:
    """The odd number next to `taps`, at least 3."""
    return max(3, 2 * round((taps - 1) / 2) + 1)


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
