"""Inputs of golden.json and golden_extra.json, the values that the authors' released functions print."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine(shape: tuple[int, ...], a: float, b: float, scale: float) -> Tensor:
    """scale * sin(a * k + b) for k = 0..n-1 in float64, row-major, cast to float32."""
    k = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin(a * k + b)).reshape(shape).float()


def chirp(shape: tuple[int, ...], a: float, b: float, scale: float) -> Tensor:
    """scale * sin(a * k^2 + b), as `sine`; matrices of it have full rank."""
    k = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin(a * k * k + b)).reshape(shape).float()
