"""ImageNet-1k classification on any folder `val/<wnid>/*.JPEG`, whole or a subset.

The class index comes from the WordNet id, never from a folder's position. `tune` is a fixed sample of
`train/` where it lies beside `val/`, else a fixed tenth of `val/`, which `report` then leaves out.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.base import Backbone
from backbones.preprocessing.transforms import is_image
from tasks.base import DataError, Evaluation, EvaluationOptions, Split, SplitFacts
from tasks.image_classification import ImageClassification
from tasks.image_files import TUNE_MOST, Sample, lowest_hashes, split_by_hash

if TYPE_CHECKING:
    from torch import nn

_CLASSES = 1000
_VALIDATION_IMAGES = 50_000
_WNID = re.compile(r"n\d{8}")


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
            return self._val if self._train_folder else self._halves[1]
        return self._train_sample if self._train_folder else self._halves[0]

    def facts(self, split: Split) -> SplitFacts:
        """`whole` is true for the official 50,000 images with none taken for tuning."""
        count = len(self.samples(split))
        from_train = split == "tune" and self._train_folder is not None
        return self._facts(
            split,
            whole=split == "report" and count == _VALIDATION_IMAGES,
            description=f"{count} images of train"
            if from_train
            else f"{count} of {len(self._val)} images of val",
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

    @functools.cached_property
    def _val_folder(self) -> Path:
        folder = self.given_folder()
        for place in (folder / "val", folder):
            if place.is_dir() and any(_WNID.fullmatch(name) for name in os.listdir(place)):
                return place
        raise DataError(
            f"neither {folder / 'val'} nor {folder} holds folders named by WordNet id, such as n01440764: "
            "give --data imagenet=DIR where DIR/val/<wnid>/ holds the images"
        )

    @functools.cached_property
    def _train_folder(self) -> Path | None:
        folder = self.given_folder() / "train"
        return folder if folder.is_dir() else None

    @functools.cached_property
    def _val(self) -> list[Sample]:
        by_class = _listed(self._val_folder, prefix="")
        return [sample for samples in by_class.values() for sample in samples]

    @functools.cached_property
    def _halves(self) -> tuple[list[Sample], list[Sample]]:
        return split_by_hash(self._val)

    @functools.cached_property
    def _train_sample(self) -> list[Sample]:
        """Equally many images of every class, about 1,000 together."""
        assert self._train_folder is not None
        by_class = _listed(self._train_folder, prefix="train/")
        share = max(1, TUNE_MOST // len(by_class))
        return [sample for samples in by_class.values() for sample in lowest_hashes(samples, share)]


def _listed(folder: Path, prefix: str) -> dict[str, list[Sample]]:
    """WordNet id -> samples in order of file name; raises DataError for foreign or empty class folders."""
    indices = _class_indices()
    wnids = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    unknown = [wnid for wnid in wnids if wnid not in indices]
    if unknown:
        raise DataError(
            f"{folder} holds folders that are no class of ImageNet-1k: {', '.join(unknown[:5])}: "
            "name every folder by its WordNet id, such as n01440764"
        )
    listed = {
        wnid: [
            Sample(f"{prefix}{wnid}/{name}", folder / wnid / name, indices[wnid])
            for name in sorted(entry.name for entry in os.scandir(folder / wnid) if is_image(entry.name))
        ]
        for wnid in wnids
    }
    empty = [wnid for wnid, samples in listed.items() if not samples]
    if empty or not listed:
        raise DataError(
            f"{folder} has no images in {', '.join(empty[:5]) or 'any class folder'}: "
            "fill the folder or remove it"
        )
    return listed


@functools.cache
def _class_indices() -> dict[str, int]:
    """WordNet id -> class index, 0 to 999."""
    from timm.data.imagenet_info import ImageNetInfo

    info: Any = ImageNetInfo("imagenet-1k")
    return {wnid: index for index, wnid in enumerate(info.label_names())}
