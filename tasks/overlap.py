"""Keeps the splits of a data set apart: a picture that is reported on never serves to tune.

Two files are the same where their bytes are, as those of one real path always are. Only files of equal size
are opened.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from backbones.loading import sha256_of_file
from backbones.preprocessing.picture_files import counted
from tasks.image_files import Sample


class Apart(NamedTuple):
    """A tune split that shares no picture with the report split."""

    tune: list[Sample]
    shared: list[str]
    """Names of the samples that left it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence where any sample left."""
        what = "images left out of the tune split, as the report split holds the same pictures"
        return (counted(what, self.shared),) if self.shared else ()


def kept_apart(tune: Sequence[Sample], report: Sequence[Sample]) -> Apart:
    """`tune` without the pictures that `report` holds too, under whatever name; empty files are none."""
    by_size: dict[int, list[Sample]] = defaultdict(list)
    for sample in report:
        by_size[_size(sample)].append(sample)
    known: dict[int, set[str]] = {}
    kept: list[Sample] = []
    shared: list[Sample] = []
    for sample in tune:
        size = _size(sample)
        rivals = by_size.get(size, []) if size else []
        if rivals and size not in known:
            known[size] = {_content(rival) for rival in rivals}
        same = bool(rivals) and _content(sample) in known[size]
        (shared if same else kept).append(sample)
    return Apart(kept, [sample.name for sample in shared])


def _size(sample: Sample) -> int:
    return sample.path.stat().st_size


def _content(sample: Sample) -> str:
    """SHA-256 of the file; its real path where it cannot be read."""
    try:
        return sha256_of_file(sample.path)
    except OSError:
        return os.path.realpath(sample.path)
