"""COCO detection on any folder with `val2017/` and `annotations/instances_val2017.json`, whole or a subset.

`tune` is a fixed sample of `train2017/` where it lies beside `val2017/` with its annotations, else a fixed
tenth of `val2017/`, which `report` then leaves out.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.base import DataConfig
from backbones.preprocessing.transforms import detector_size, fitted_size, is_image, read_fitted, read_resized
from tasks.base import DataError, Split, SplitFacts
from tasks.coco_annotations import CATEGORIES, Annotations, read_annotations
from tasks.detection import DetectionTask, Scene
from tasks.detection_scoring import Truth
from tasks.image_files import (
    TUNE_MOST,
    ReadingReport,
    Sample,
    counted,
    digest,
    lowest_hashes,
    read_each,
    shuffled,
    split_by_hash,
    too_few,
)

if TYPE_CHECKING:
    from torch import Tensor

_VALIDATION_IMAGES = 5_000


class Coco(DetectionTask):
    """Box and mask AP on COCO's 80 classes; `folder` holds `val2017/` and `annotations/`."""

    name = "coco"
    data_name = "coco"
    class_names = tuple(CATEGORIES.values())

    def facts(self, split: Split) -> SplitFacts:
        """`whole` is true for the official 5,000 images with none taken for tuning."""
        samples = self.samples(split)
        from_train = split == "tune" and self._has_train
        found = hashlib.sha256(digest(samples).encode())
        for sample in samples:
            found.update(_text_of(self._truths[sample.name]).encode())
        return SplitFacts(
            sample_count=len(samples),
            digest=found.hexdigest(),
            labelled=True,
            whole=split == "report" and len(samples) == _VALIDATION_IMAGES,
            description=f"{len(samples)} images of train2017"
            if from_train
            else f"{len(samples)} of {len(self._val[0])} images of val2017",
        )

    def sample_count(self, split: Split) -> int:
        """Annotated images of the split whose files are there."""
        return len(self.samples(split))

    def samples(self, split: Split) -> Sequence[Sample]:
        """The images of a split, ordered by file name."""
        tune, report = split_by_hash(self._val[0])
        if not self._has_train:
            return tune if split == "tune" else report
        return self._val[0] if split == "report" else lowest_hashes(self._train[0], TUNE_MOST)

    def scenes(self, split: Split, data: DataConfig, report: ReadingReport) -> Iterator[Scene]:
        """The split's readable images; one whose shape is not the annotated one is left out."""
        samples = self.samples(split)
        if not samples:
            raise DataError(f"the {split} split of {self.given_folder()} is empty: give more images")
        for sample, pixels in read_each(samples, data, report, read_resized):
            truth = self._truths[sample.name]
            if _size(pixels) == detector_size(truth.size, data):
                yield Scene(sample.name, pixels, truth)
            else:
                report.mismatched.append(sample.name)

    def calibration_scenes(self, data: DataConfig, count: int, seed: int) -> list[Scene]:
        """`count` readable images of the tune split, drawn by `seed`."""
        scenes: list[Scene] = []
        samples = shuffled(self.samples("tune"), seed)
        if samples:
            for sample, pixels in read_each(samples, data, ReadingReport(), read_fitted):
                truth = self._truths[sample.name]
                if _size(pixels) == fitted_size(truth.size, data):
                    scenes.append(Scene(sample.name, pixels, truth))
                if len(scenes) == count:
                    return scenes
        raise DataError(too_few(count, len(scenes)))

    def data_notes(self) -> tuple[str, ...]:
        """What was left out of the annotations and of the folder of val2017."""
        return (*self._val_annotations.notes, *self._val[1])

    @property
    def _has_train(self) -> bool:
        folder = self.given_folder()
        return (folder / "train2017").is_dir() and _annotation_file(folder, "train2017").is_file()

    @functools.cached_property
    def _val(self) -> tuple[list[Sample], tuple[str, ...]]:
        return self._listed("val2017", "", self._val_annotations.truths)

    @functools.cached_property
    def _train(self) -> tuple[list[Sample], tuple[str, ...]]:
        return self._listed("train2017", "train2017/", self._train_annotations.truths)

    @functools.cached_property
    def _truths(self) -> Mapping[str, Truth]:
        """Name of a sample -> what it shows."""
        truths = dict(self._val_annotations.truths)
        if self._has_train:
            train = self._train_annotations.truths
            truths |= {f"train2017/{name}": truth for name, truth in train.items()}
        return truths

    @functools.cached_property
    def _val_annotations(self) -> Annotations:
        return read_annotations(_annotation_file(self.given_folder(), "val2017"))

    @functools.cached_property
    def _train_annotations(self) -> Annotations:
        return read_annotations(_annotation_file(self.given_folder(), "train2017"))

    def _listed(
        self, part: str, prefix: str, truths: Mapping[str, Truth]
    ) -> tuple[list[Sample], tuple[str, ...]]:
        """The annotated images that are there, and notes about missing and about unlisted ones.

        Raises DataError when no annotated image is there.
        """
        folder = self.given_folder() / part
        if not folder.is_dir():
            raise DataError(f"no folder {folder}: give --data coco=DIR where DIR/{part}/ holds the images")
        there = {
            Path(place, name).relative_to(folder).as_posix()
            for place, _, names in os.walk(folder)
            for name in names
            if is_image(name)
        }
        samples = [Sample(prefix + name, folder / name) for name in truths if name in there]
        if not samples:
            raise DataError(
                f"{folder} holds none of the {len(truths)} images that "
                f"{_annotation_file(folder.parent, part)} lists: put them there"
            )
        kinds = (
            ("annotated images left out whose file is not there", [n for n in truths if n not in there]),
            ("images left out that the annotations do not list", sorted(there - set(truths))),
        )
        return samples, tuple(counted(what, names) for what, names in kinds if names)


def _annotation_file(folder: Path, part: str) -> Path:
    return folder / "annotations" / f"instances_{part}.json"


def _text_of(truth: Truth) -> str:
    columns = (truth.boxes, truth.labels, truth.areas, truth.crowd)
    return f"{truth.size}{[column.tolist() for column in columns]}{truth.segments}\n"


def _size(pixels: Tensor) -> tuple[int, int]:
    return pixels.shape[-1], pixels.shape[-2]
