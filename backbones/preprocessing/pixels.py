"""From pixels to a model's input; the one place where mean and standard deviation are applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backbones.base import DataConfig

if TYPE_CHECKING:
    from torch import Tensor


def normalized(pixels: Tensor, data: DataConfig) -> Tensor:
    """Model input from pixels (..., C, H, W): uint8 in [0, 255] or float in [0, 1]."""
    import torch

    scaled = pixels if pixels.is_floating_point() else pixels.float() / 255
    mean = torch.tensor(data.mean, device=pixels.device).view(-1, 1, 1)
    std = torch.tensor(data.std, device=pixels.device).view(-1, 1, 1)
    return (scaled - mean) / std
