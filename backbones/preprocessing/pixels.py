"""From pixels to a model's normalized space and back: the one place where mean and std are applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backbones.preprocessing.data_config import DataConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def normalized(pixels: Tensor, data: DataConfig) -> Tensor:
    """Model input from pixels (..., C, H, W): uint8 in [0, 255] or float in [0, 1]."""
    scaled = pixels if pixels.is_floating_point() else pixels.float() / 255
    mean, std = _statistics(data, pixels.device)
    return (scaled - mean) / std


def denormalized(images: Tensor, data: DataConfig) -> Tensor:
    """Pixels of normalized images (..., C, H, W): float, from 0 for black to 1 for white."""
    mean, std = _statistics(data, images.device)
    return images * std + mean


def pixel_range(data: DataConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Black and white in normalized space, each of shape (C, 1, 1)."""
    mean, std = _statistics(data, device)
    return (0 - mean) / std, (1 - mean) / std


def _statistics(data: DataConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each of shape (C, 1, 1)."""
    import torch

    mean = torch.tensor(data.mean, device=device).view(-1, 1, 1)
    std = torch.tensor(data.std, device=device).view(-1, 1, 1)
    return mean, std
