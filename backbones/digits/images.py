"""scikit-learn's handwritten digits as 16 x 16 images in three fixed, disjoint, stratified splits.

Nothing is cached here, so that the run-time guard against methods that read data sees every access.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

DigitsSplit = Literal["train", "tune", "report"]
"""`train` made the shipped weights; `tune` and `report` are the task's splits."""

_SIDE = 16
"""Pixels; the originals have 8."""
_BOUNDS: dict[DigitsSplit, slice] = {
    "train": slice(0, 1000),
    "tune": slice(1000, 1297),
    "report": slice(1297, 1797),
}


@dataclass(frozen=True)
class Digits:
    """Images of one split with their labels."""

    images: Tensor
    """(n, 1, 16, 16) float32 in [0, 1]."""
    labels: Tensor
    """(n,) int64, 0 to 9."""
    positions: tuple[int, ...]
    """Place of each sample among scikit-learn's 1,797."""


def load_digits_split(split: DigitsSplit) -> Digits:
    """Read one split; the 8 x 8 originals (0 to 16) are upsampled bilinearly."""
    import torch
    import torch.nn.functional as F
    from sklearn.datasets import load_digits

    bunch = load_digits()
    positions = _stratified_order(bunch.target)[_BOUNDS[split]]
    small = torch.from_numpy(bunch.images[positions]).float().unsqueeze(1) / 16
    images = F.interpolate(small, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False)
    labels = torch.from_numpy(bunch.target[positions]).long()
    return Digits(images, labels, tuple(positions))


def _stratified_order(labels: np.ndarray) -> list[int]:
    """A fixed permutation whose every stretch holds the classes in equal shares.

    Within a class samples are ordered by a hash of their place; a sample's share of its class that lies
    before it is its place in the whole. No random stream of a library, which might change, takes part.
    """
    members: dict[int, list[int]] = {}
    for position, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(position)
    placed = []
    for label, positions in sorted(members.items()):
        shuffled = sorted(positions, key=lambda p: hashlib.sha256(f"digits/{p}".encode()).digest())
        placed += [((rank + 0.5) / len(shuffled), label, p) for rank, p in enumerate(shuffled)]
    return [position for _, _, position in sorted(placed)]
