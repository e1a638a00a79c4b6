"""Detection of digits on textured canvases, the task of the detector that the project ships."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backbones.base import DataConfig
from backbones.digits.scenes import Scenes, load_scenes_split
from tasks.base import DataError, Split, SplitFacts
from tasks.detection import DetectionTask, Scene
from tasks.detection_scoring import Truth
from tasks.image_files import ReadingReport

if TYPE_CHECKING:
    from torch import Tensor


class DigitsScenes(DetectionTask):
    """Two to five digits in each image of 96 x 96 pixels, one channel; made by seed."""

    name = "digits_scenes"
    data_name = None
    class_names = tuple("0123456789")

    def facts(self, split: Split) -> SplitFacts:
        """`report` is the whole evaluation set: the shipped detector saw none of its digits."""
        made = self._made(split)
        found = hashlib.sha256(made.images.numpy().tobytes())
        for boxes, labels in zip(made.boxes, made.labels, strict=True):
            found.update(f"{boxes.tolist()}{labels.tolist()}\n".encode())
        return SplitFacts(
            sample_count=len(made.images),
            digest=found.hexdigest(),
            labelled=True,
            whole=split == "report",
            description=f"{len(made.images)} scenes of scikit-learn's digits",
        )

    def sample_count(self, split: Split) -> int:
        """Scenes of the split."""
        return len(self._made(split).images)

    def scenes(self, split: Split, data: DataConfig, report: ReadingReport) -> Iterator[Scene]:
        """The split's scenes in the order they were made."""
        made = self._made(split)
        for index in range(len(made.images)):
            yield _scene(made, index, split)

    def calibration_scenes(self, data: DataConfig, count: int, seed: int) -> list[Scene]:
        """`count` scenes of the tune split, drawn by `seed`."""
        import torch

        made = self._made("tune")
        total = len(made.images)
        if count > total:
            raise DataError(
                f"{count} images are asked for, but the tune split of digits_scenes holds {total}"
            )
        drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count]
        return [_scene(made, index, "tune") for index in drawn.tolist()]

    def _made(self, split: Split) -> Scenes:
        return self._tune if split == "tune" else self._report

    @functools.cached_property
    def _tune(self) -> Scenes:
        return load_scenes_split("tune")

    @functools.cached_property
    def _report(self) -> Scenes:
        return load_scenes_split("report")


def _scene(made: Scenes, index: int, split: Split) -> Scene:
    image, boxes = made.images[index], made.boxes[index].double()
    sides: Tensor = boxes[:, 2:] - boxes[:, :2]
    truth = Truth(
        size=(image.shape[-1], image.shape[-2]),
        boxes=boxes,
        labels=made.labels[index].long(),
        areas=sides.prod(dim=1),
        crowd=boxes.new_zeros(len(boxes)).bool(),
    )
    return Scene(f"{split}/{index}", image, truth)
