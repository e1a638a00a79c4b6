"""Agreement with the full-precision model on any folder of pictures, for users without labelled data."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from backbones.preprocessing.transforms import is_image
from tasks.base import DataError, Split, SplitFacts
from tasks.image_classification import ImageClassification
from tasks.image_files import Sample, split_by_hash


class UnlabelledImages(ImageClassification):
    """Pictures without labels, found recursively under `folder`."""

    name = "images"
    primary_metric = "agreement"
    data_name = "images"
    needs_own_backbones = False
    labelled = False

    def samples(self, split: Split) -> Sequence[Sample]:
        """The pictures of a split, ordered by path."""
        return self._halves[0 if split == "tune" else 1]

    def facts(self, split: Split) -> SplitFacts:
        """Never `whole`: a folder of pictures is nobody's official set."""
        return self._facts(split, whole=False, description=f"{len(self.samples(split))} unlabelled images")

    @functools.cached_property
    def _halves(self) -> tuple[list[Sample], list[Sample]]:
        folder = self.given_folder()
        paths = [Path(place, name) for place, _, names in os.walk(folder) for name in names if is_image(name)]
        if not paths:
            raise DataError(f"{folder} holds no image files: give --data images=DIR with pictures in DIR")
        samples = [Sample(path.relative_to(folder).as_posix(), path) for path in paths]
        return split_by_hash(sorted(samples, key=lambda sample: sample.name))
