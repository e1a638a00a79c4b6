"""Tiny trained teachers and images for tests of quantizers and engines."""

from __future__ import annotations

import functools

import torch
from torch import Generator, Tensor

from backbones import SPECS, Backbone, find_weights, load_backbone
from methods.base import FixedImages, SyntheticImages

FAMILIES = ("digits_vit", "digits_swin")


@functools.cache
def tiny(name: str) -> Backbone:
    """A shipped digits model; it is shared by all tests, which must leave it as it is."""
    return load_backbone(name, find_weights(SPECS[name]))


def blobs(count: int, seed: int = 0) -> Tensor:
    """(count, 1, 16, 16) smooth random pictures in the digits models' normalized space."""
    noise = torch.randn(count, 1, 4, 4, generator=Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=16, mode="bicubic")


def source_of(images: Tensor) -> FixedImages:
    """Images without meaningful labels, as an engine sees them."""
    return FixedImages(SyntheticImages(images, torch.full((len(images),), -1)))
