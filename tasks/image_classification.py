"""Classification of image files in a folder: facts of a split, scoring, and images to calibrate with.

A subclass says which files there are and what their labels are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from backbones.base import Backbone
from tasks.base import DataError, Evaluation, EvaluationOptions, Split, SplitFacts, Task
from tasks.classification_scoring import Batch, score
from tasks.image_files import ReadingReport, Sample, digest, draw_images, files_of, read_batches

if TYPE_CHECKING:
    from torch import Tensor, nn


class ImageClassification(Task):
    """Scores classifiers on image files, against labels where these have some; a subclass lists them."""

    labelled: ClassVar[bool]
    """Whether top-1 and top-5 exist."""

    @abstractmethod
    def samples(self, split: Split) -> Sequence[Sample]:
        """The samples of a split in their fixed order; raises DataError."""

    @abstractmethod
    def facts(self, split: Split) -> SplitFacts:
        """What the split holds."""

    def picture_files(self) -> Mapping[str, Path]:
        """Every picture that is scored or drawn from."""
        return files_of(self.samples)

    def folder_notes(self) -> tuple[str, ...]:
        """What was left out of the folder of pictures that is reported on: one sentence for each kind."""
        return ()

    def evaluate(
        self,
        model: nn.Module,
        backbone: Backbone,
        split: Split,
        options: EvaluationOptions = EvaluationOptions(),
    ) -> Evaluation:
        """Score `model`; broken files are left out and named, others converted and named."""
        samples = self.samples(split)
        if not samples:
            raise DataError(f"the {split} split of {self.given_folder()} is empty: give more images")
        report = ReadingReport()
        names: list[str] = []
        scores = score(
            model,
            backbone,
            _batches(samples, backbone, options.batch_size, report, names),
            options,
            total=len(samples),
            labelled=self.labelled,
        )
        return Evaluation(
            metrics=scores.metrics,
            outcomes=scores.outcomes,
            sample_ids=tuple(names),
            outputs=scores.outputs,
            notes=(*self.folder_notes(), *report.notes(), *scores.notes),
        )

    def calibration_images(self, backbone: Backbone, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """`count` images of the tune split and their labels (-1 without), drawn by `seed`."""
        import torch

        drawn = draw_images(self.samples("tune"), backbone.data, count, seed)
        return drawn.images, torch.tensor([sample.label for sample in drawn.samples])

    def _facts(
        self, split: Split, *, whole: bool, description: str, one_in: int = 1, notes: tuple[str, ...] = ()
    ) -> SplitFacts:
        samples = self.samples(split)
        found = (*self.folder_notes(), *notes)
        return SplitFacts(len(samples), digest(samples), self.labelled, whole, description, one_in, found)


def _batches(
    samples: Sequence[Sample], backbone: Backbone, batch_size: int, report: ReadingReport, names: list[str]
) -> Iterator[Batch]:
    """Batches for scoring; the names of what was read are appended to `names`."""
    import torch

    for read in read_batches(samples, backbone.data, batch_size, report):
        names += [sample.shown for sample in read.samples]
        yield Batch(read.images, torch.tensor([sample.label for sample in read.samples]))
