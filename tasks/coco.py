"""COCO detection on any folder with `val2017/` and `annotations/instances_val2017.json`, whole or a subset.

`tune` is a fixed sample of `train2017/` where it lies beside `val2017/` with its annotations, else a fixed
tenth of `val2017/`, which `report` then leaves out.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple

from backbones.base import DataConfig
from backbones.preprocessing.picture_files import counted, pictures_under, some
from backbones.preprocessing.transforms import detector_size, fitted_size, read_fitted, read_resized
from tasks.base import DataError, Split, SplitFacts
from tasks.coco_annotations import CATEGORIES, Annotations, read_annotations
from tasks.detection import DetectionTask, Scene
from tasks.detection_scoring import Truth
from tasks.image_files import (
    TUNE_MOST,
    TUNE_SHARE,
    ReadingReport,
    Sample,
    digest,
    files_of,
    lowest_hashes,
    read_each,
    shuffled,
    split_by_hash,
    too_few,
    unopened_notes,
)
from tasks.overlap import Apart, kept_apart

if TYPE_CHECKING:
    from torch import Tensor

_VALIDATION_IMAGES = 5_000


class _Part(NamedTuple):
    """The annotated pictures of one folder that are there."""

    samples: list[Sample]
    truths: dict[str, Truth]
    """Name of a sample -> what it shows."""
    notes: tuple[str, ...]


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
            else f"{len(samples)} of {len(self._val.samples)} images of val2017",
            one_in=TUNE_SHARE if split == "tune" and not from_train else 1,
            notes=(*self.data_notes(), *self._tune_notes()),
        )

    def picture_files(self) -> Mapping[str, Path]:
        """Every picture that is scored or drawn from."""
        return files_of(self.samples)

    def sample_count(self, split: Split) -> int:
        """Annotated images of the split whose files are there."""
        return len(self.samples(split))

    def samples(self, split: Split) -> Sequence[Sample]:
        """The images of a split, ordered by file name."""
        if split == "tune":
            return self._tune.tune
        return self._val.samples if self._has_train else self._halves[1]

    def scenes(self, split: Split, data: DataConfig, report: ReadingReport) -> Iterator[Scene]:
        """The split's readable images; one whose shape is not the annotated one is left out."""
        samples = self.samples(split)
        if not samples:
            raise DataError(f"the {split} split of {self.given_folder()} is empty: give more images")
        for sample, pixels in read_each(samples, data, report, read_resized):
            truth = self._truths[sample.name]
            if _size(pixels) == detector_size(truth.size, data):
                yield Scene(sample.shown, pixels, truth)
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
                    scenes.append(Scene(sample.shown, pixels, truth))
                if len(scenes) == count:
                    return scenes
        raise DataError(too_few(count, len(scenes)))

    def data_notes(self) -> tuple[str, ...]:
        """What was left out of the annotations and of the folder of val2017."""
        return (*self._val_annotations.notes, *self._val.notes)

    @property
    def _has_train(self) -> bool:
        folder = self.given_folder()
        return (folder / "train2017").is_dir() and _annotation_file(folder, "train2017").is_file()

    @functools.cached_property
    def _val(self) -> _Part:
        return self._listed("val2017", "", self._val_annotations.truths)

    @functools.cached_property
    def _train(self) -> _Part:
        return self._listed("train2017", "train2017/", self._train_annotations.truths)

    @functools.cached_property
    def _halves(self) -> tuple[list[Sample], list[Sample]]:
        return split_by_hash(self._val.samples)

    @functools.cached_property
    def _tune(self) -> Apart:
        """The tune split; raises DataError where the report split holds the whole of it."""
        if not self._has_train:
            return kept_apart(*self._halves)
        apart = kept_apart(lowest_hashes(self._train.samples, TUNE_MOST), self._val.samples)
        if not apart.tune:
            folder = self.given_folder()
            raise DataError(
                f"{folder / 'train2017'} and {folder / 'val2017'} hold the same images "
                f"({some(apart.shared)}): remove the former, and a part of the latter serves to tune"
            )
        return apart

    def _tune_notes(self) -> tuple[str, ...]:
        """What left the tune split; a train2017 that cannot be used is no fault of the report split."""
        try:
            return self._tune.notes
        except DataError as error:
            return (f"there is no tune split: {error}",)

    @functools.cached_property
    def _truths(self) -> Mapping[str, Truth]:
        """Name of a sample -> what it shows."""
        return {**self._val.truths, **self._train.truths} if self._has_train else self._val.truths

    @functools.cached_property
    def _val_annotations(self) -> Annotations:
        return read_annotations(_annotation_file(self.given_folder(), "val2017"))

    @functools.cached_property
    def _train_annotations(self) -> Annotations:
        return read_annotations(_annotation_file(self.given_folder(), "train2017"))

    def _listed(self, part: str, prefix: str, truths: Mapping[str, Truth]) -> _Part:
        """The annotated images that are there, and notes about missing and about unlisted ones.

        Raises DataError when no annotated image is there, or two of them are one file.
        """
        folder = self.given_folder() / part
        if not folder.is_dir():
            raise DataError(f"no folder {folder}: give --data coco=DIR where DIR/{part}/ holds the images")
        found = pictures_under(folder)
        there = {path.relative_to(folder).as_posix(): path for path in found.paths}
        names = {listed: _name_on_disk(listed, there) for listed in truths}
        lost = [listed for listed, name in names.items() if name is None]
        by_name: dict[str, str] = {}
        for listed, name in names.items():
            if name is not None and by_name.setdefault(name, listed) != listed:
                raise DataError(
                    f"{_annotation_file(folder.parent, part)} lists {by_name[name]} and {listed}, "
                    f"but {folder} holds only {name} for both: list every image once"
                )
        if not by_name:
            raise DataError(
                f"{folder} holds none of the {len(truths)} images that "
                f"{_annotation_file(folder.parent, part)} lists: it lists {some(lost)}, the folder holds "
                f"{some(list(there)) or 'no images'}"
            )
        kinds = (
            ("annotated images left out whose file is not there", lost),
            ("images left out that the annotations do not list", sorted(set(there) - set(by_name))),
        )
        return _Part(
            [Sample(prefix + name, there[name]) for name in sorted(by_name)],
            {prefix + name: truths[listed] for name, listed in by_name.items()},
            (
                *(counted(what, left) for what, left in kinds if left),
                *unopened_notes(found.unopened),
            ),
        )


def _name_on_disk(listed: str, there: Mapping[str, Path]) -> str | None:
    """The file that an annotated name means: the name itself, or without the folders before it."""
    if listed in there:
        return listed
    parts = PureWindowsPath(listed).parts
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in there), None)


def _annotation_file(folder: Path, part: str) -> Path:
    return folder / "annotations" / f"instances_{part}.json"


def _text_of(truth: Truth) -> str:
    columns = (truth.boxes, truth.labels, truth.areas, truth.crowd)
    return f"{truth.size}{[column.tolist() for column in columns]}{truth.segments}\n"


def _size(pixels: Tensor) -> tuple[int, int]:
    return pixels.shape[-1], pixels.shape[-2]
