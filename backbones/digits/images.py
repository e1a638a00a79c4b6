"""scikit-learn's handwritten digits as 16 x 16 images in three fixed, disjoint, stratified splits.

Its file is read without scikit-learn, whose import takes longer than all else that a plan does. Nothing is
cached here, so that the run-time guard against methods that read data sees every access.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
class DigitArrays:
    """One split as arrays."""

    images: np.ndarray
    """(n, 1, 16, 16) float32 in [0, 1]."""
    labels: np.ndarray
    """(n,) int64, 0 to 9."""
    positions: tuple[int, ...]
    """Place of each sample among scikit-learn's 1,797."""


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
    """Read one split as tensors."""
    import torch

    read = read_digits_split(split)
    return Digits(torch.from_numpy(read.images), torch.from_numpy(read.labels), read.positions)


def read_digits_split(split: DigitsSplit) -> DigitArrays:
    """Read one split without loading torch; the 8 x 8 originals (0 to 16) are upsampled bilinearly."""
    import numpy as np

    with gzip.open(_originals(), "rt", encoding="ascii") as file:
        rows = np.loadtxt(file, delimiter=",")
    labels = rows[:, -1].astype(np.int64)
    positions = _stratified_order(labels)[_BOUNDS[split]]
    small = rows[positions, :-1].reshape(-1, 1, 8, 8).astype(np.float32) / np.float32(16)
    return DigitArrays(_doubled(_doubled(small, 2), 3), labels[positions], tuple(positions))


def _originals() -> Path:
    """The file of scikit-learn's digits: a line of 64 pixels and a label for each."""
    spec = importlib.util.find_spec("sklearn")
    places = (spec and spec.submodule_search_locations) or []
    found = [file for place in places if (file := Path(place, "datasets", "data", "digits.csv.gz")).is_file()]
    if not found:
        raise FileNotFoundError("scikit-learn's digits.csv.gz is not there: install scikit-learn again")
    return found[0]


def _doubled(images: np.ndarray, axis: int) -> np.ndarray:
    """Twice as many pixels along an axis: 3/4 of the nearer and 1/4 of the next neighbour, borders repeated.

    Sixteenths stay exact in float32, so any bilinear upsampling by two gives the same bits.
    """
    import numpy as np

    padding = [(int(place == axis),) * 2 for place in range(images.ndim)]
    before, here, after = (
        np.take(np.pad(images, padding, mode="edge"), range(start, start + images.shape[axis]), axis)
        for start in range(3)
    )
    pair = np.stack([0.25 * before + 0.75 * here, 0.75 * here + 0.25 * after], axis + 1)
    shape: Any = [*images.shape]
    shape[axis] *= 2
    return pair.reshape(shape)


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
