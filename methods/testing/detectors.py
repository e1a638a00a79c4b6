"""Tiny detectors with random weights, for images that are not square; for tests of methods and engines."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Generator, Tensor

from backbones import Backbone, BackboneSpec, DataConfig
from backbones.loading import build_model

_YOLOS = {
    "position_size": (32, 48),
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "det_tokens": 5,
    "mid_positions": True,
}
# 16 x 24 patches in windows of 7: the windows of all stages are padded.
_SWIN = {
    "embed_dim": 16,
    "depths": (1, 2, 1, 1),
    "num_heads": (2, 2, 2, 2),
    "window_size": 7,
    "pyramid_channels": 16,
    "box_hidden": 16,
}


@functools.cache
def detector(family: str, *, finds: bool = True) -> Backbone:
    """The detector of that family; it is shared by all tests, which must leave it as it is.

    A Mask R-CNN that does not find anything gives every region and class the score 1 / 41, below its 0.05.
    """
    yolos = family == "yolos"
    size = (1, 32, 48) if yolos else (3, 64, 96)
    data = DataConfig(size, mean=(0.5,) * size[0], std=(0.5,) * size[0])
    spec = BackboneSpec(
        name=f"tiny_{family}",
        family=family,
        published_name="",
        timm_name="" if yolos else "swin_tiny_patch4_window7_224",
        data=data,
        num_classes=3 if finds else 40,
        dataset="digits_scenes" if yolos else "coco",
        model_settings=_YOLOS if yolos else _SWIN,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(spec)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2 if yolos else 0.1)
        if not finds:
            heads: Any = model.roi_heads
            torch.nn.init.zeros_(heads.class_logits.weight)
    return Backbone(spec, model.eval().requires_grad_(False), "x")


def pictures(teacher: Backbone, count: int, seed: int = 0) -> Tensor:
    """(count, C, H, W) smooth random pictures of the detector's size, in normalized space."""
    channels, height, width = teacher.data.input_size
    noise = torch.randn(count, channels, 4, 6, generator=Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic")
