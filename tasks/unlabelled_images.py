"""Agreement with the full-precision model on any folder of pictures, for users without labelled data."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from backbones.preprocessing.picture_files import PictureFiles, pictures_under
from tasks.base import DataError, Split, SplitFacts
from tasks.image_classification import ImageClassification
from tasks.image_files import TUNE_SHARE, Sample, split_by_hash, unopened_notes
from tasks.overlap import Apart, kept_apart


class UnlabelledImages(ImageClassification):
    """Pictures without labels, found recursively under `folder`."""

    name = "images"
    primary_metric = "agreement"
    data_name = "images"
    needs_own_backbones = False
    labelled = False

    def samples(self, split: Split) -> Sequence[Sample]:
        """The pictures of a split, ordered by path."""
        return self._tune.tune if split == "tune" else self._halves[1]

    def facts(self, split: Split) -> SplitFacts:
        """Never `whole`: a folder of pictures is nobody's official set."""
        return self._facts(
            split,
            whole=False,
            description=f"{len(self.samples(split))} unlabelled images",
            one_in=TUNE_SHARE if split == "tune" else 1,
            notes=self._tune.notes,
        )

    def folder_notes(self) -> tuple[str, ...]:
        """Pictures that cannot be opened."""
        return unopened_notes(self._found.unopened)

    @functools.cached_property
    def _found(self) -> PictureFiles:
        folder = self.given_folder()
        found = pictures_under(folder)
        if not found.paths:
            raise DataError(
                f"{folder} holds no image files{' that can be opened' if found.unopened else ''}: "
                "give --data images=DIR with pictures in DIR"
            )
        return found

    @functools.cached_property
    def _halves(self) -> tuple[list[Sample], list[Sample]]:
        folder = self.given_folder()
        return split_by_hash([Sample(p.relative_to(folder).as_posix(), p) for p in self._found.paths])

    @functools.cached_property
    def _tune(self) -> Apart:
        return kept_apart(*self._halves)
