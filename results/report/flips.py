"""Which images change sides against full precision, for which rows, and how these sets of images overlap.

Outcomes stay packed, eight images to a byte: ten rows of 50,000 images take less than 0.1 MB as base64.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.grouping import Row
from results.record import Record
from results.statistics import unpack_outcomes

if TYPE_CHECKING:
    import numpy as np

MOST_BYTES = 8_000_000
"""Base64 of outcomes in one page; what is beyond is left out, and the page says how much."""


@dataclass(frozen=True)
class Flips:
    """Rows that were scored on the same images as one full-precision row."""

    backbone: str
    bits: tuple[str, ...]
    images: int
    teacher: Record
    rows: tuple[int, ...]
    """Indices into the report's rows, those with outcomes alone."""
    lost: tuple[int, ...]
    """For each row the images that only full precision has right, at its first seed with a result."""
    gained: tuple[int, ...]
    shared: tuple[tuple[int, ...], ...]
    """For each two rows the images that both lose."""


def flips_of(rows: Sequence[Row]) -> list[Flips]:
    """One entry per backbone and set of samples that has full precision and at least one other row."""
    import numpy as np

    groups: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
    teachers: dict[tuple[str, str, str, str], Record] = {}
    for index, row in enumerate(rows):
        one = row.first
        if one.status != "ok" or not one.samples_digest or one.metric not in one.outcomes:
            continue
        key = (one.backbone, one.weights_sha256, one.samples_digest, one.metric)
        if row.is_full_precision:
            teachers.setdefault(key, one)
        else:
            groups[key].append(index)
    found = []
    for key, members in groups.items():
        if key not in teachers:
            continue
        teacher = teachers[key]
        right = right_of(teacher)
        others = np.stack([right_of(rows[i].first) for i in members])
        lost = right & ~others
        gained = ~right & others
        both = lost.astype(np.float32) @ lost.T.astype(np.float32)
        found.append(
            Flips(
                key[0],
                tuple(dict.fromkeys(rows[i].first.bits for i in members)),
                teacher.images,
                teacher,
                tuple(members),
                tuple(map(int, lost.sum(axis=1))),
                tuple(map(int, gained.sum(axis=1))),
                tuple(tuple(map(int, line)) for line in both),
            )
        )
    return found


def right_of(record: Record) -> np.ndarray:
    """(n,) whether the record is right on each image, by its ranking metric."""
    return unpack_outcomes(record.outcomes[record.metric], record.images)


def packed_bytes(values: Iterable[float]) -> str:
    """Base64 of numbers from 0 to 1, each rounded to one of 255 steps."""
    import numpy as np

    steps = np.clip(np.rint(np.asarray(list(values), dtype=float) * 255), 0, 255).astype(np.uint8)
    return base64.b64encode(steps.tobytes()).decode("ascii")


def drop_by_class(
    rows: Sequence[Row], flips: Flips, row: int, answers: Sequence[int], least: int = 5
) -> dict[int, float]:
    """Class -> points that the row loses against full precision among the images that the latter calls so.

    Classes with fewer than `least` such images are left out: their figure would be noise.
    """
    import numpy as np

    classes = np.asarray(answers)
    teacher, own = right_of(flips.teacher), right_of(rows[row].first)
    drops = {}
    for number in np.unique(classes):
        there = classes == number
        if there.sum() >= least:
            drops[int(number)] = 100 * float(teacher[there].mean() - own[there].mean())
    return drops
