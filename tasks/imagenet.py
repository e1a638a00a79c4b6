"""ImageNet-1k classification on any folder that `imagenet_layout` understands, whole or a subset.

The class index comes from the WordNet id, never from a folder's position. `tune` is a fixed sample of
`train/` where it lies beside `val/`, else a fixed tenth of `val/`, which `report` then leaves out.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.base import Backbone
from backbones.preprocessing.picture_files import counted, some
from tasks.base import DataError, Evaluation, EvaluationOptions, Split, SplitFacts
from tasks.image_classification import ImageClassification
from tasks.image_files import TUNE_MOST, TUNE_SHARE, Sample, lowest_hashes, split_by_hash, unopened_notes
from tasks.imagenet_layout import Layout, Listing, find_layout, listed
from tasks.overlap import Apart, kept_apart

if TYPE_CHECKING:
    from torch import nn

_CLASSES = 1000
_VALIDATION_IMAGES = 50_000


class ImageNet(ImageClassification):
    """Top-1 and top-5 on ImageNet-1k; `folder` holds `val/`, or is `val/` itself."""

    name = "imagenet"
    primary_metric = "top1"
    data_name = "imagenet"
    unlabelled_fallback = "images"
    labelled = True

    def samples(self, split: Split) -> Sequence[Sample]:
        """The images of a split, ordered by class folder and file name."""
        if split == "report":
            return self._val.samples if self._layout.train else self._halves[1]
        return self._tune.tune

    def facts(self, split: Split) -> SplitFacts:
        """`whole` is true for the official 50,000 images with none taken for tuning."""
        count = len(self.samples(split))
        from_train = split == "tune" and self._layout.train is not None
        return self._facts(
            split,
            whole=split == "report" and count == _VALIDATION_IMAGES,
            description=f"{count} images of train"
            if from_train
            else f"{count} of {len(self._val.samples)} images of val",
            one_in=TUNE_SHARE if split == "tune" and not from_train else 1,
            notes=self._tune_notes(),
        )

    def evaluate(
        self,
        model: nn.Module,
        backbone: Backbone,
        split: Split,
        options: EvaluationOptions = EvaluationOptions(),
    ) -> Evaluation:
        """Score `model`; raises DataError for a backbone with other classes."""
        if backbone.num_classes != _CLASSES:
            raise DataError(
                f"{backbone.spec.name} has {backbone.num_classes} classes, the task imagenet {_CLASSES}: "
                "choose a backbone trained on imagenet"
            )
        return super().evaluate(model, backbone, split, options)

    def folder_notes(self) -> tuple[str, ...]:
        """Pictures of val that cannot be opened, and those without a class."""
        loose = self._val.loose
        what = "loose images beside the class folders left out, as if sorting was cut short"
        return (*unopened_notes(self._val.unopened), *((counted(what, loose),) if loose else ()))

    @functools.cached_property
    def _layout(self) -> Layout:
        return find_layout(self.given_folder())

    @functools.cached_property
    def _val(self) -> Listing:
        return listed(self._layout.val, self.given_folder())

    @functools.cached_property
    def _halves(self) -> tuple[list[Sample], list[Sample]]:
        return split_by_hash(self._val.samples)

    @functools.cached_property
    def _tune(self) -> Apart:
        """The tune split; raises DataError where the report split holds the whole of train."""
        if self._layout.train is None:
            return kept_apart(*self._halves)
        apart = kept_apart(self._train_sample(self._layout.train), self._val.samples)
        if not apart.tune:
            raise DataError(
                f"{self._layout.train} and {self._layout.val} hold the same images ({some(apart.shared)}): "
                "remove the former, and a part of the latter serves to tune"
            )
        return apart

    def _train_sample(self, folder: Path) -> list[Sample]:
        """Equally many images of every class, about 1,000 together."""
        by_class = listed(folder, self.given_folder(), prefix="train/").by_class
        share = max(1, TUNE_MOST // len(by_class))
        return [sample for samples in by_class.values() for sample in lowest_hashes(samples, share)]

    def _tune_notes(self) -> tuple[str, ...]:
        """What left the tune split; a train folder that cannot be used is no fault of the report split."""
        try:
            return self._tune.notes
        except DataError as error:
            return (f"there is no tune split: {error}",)
