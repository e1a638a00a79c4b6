"""The contract of a task: its data, its disjoint splits and its per-sample outcomes.

Methods never see this package; `harness` hands images to the real-data reference alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from backbones.base import Backbone

if TYPE_CHECKING:
    from torch import Tensor, nn

Split = Literal["tune", "report"]
"""`tune` serves hyper-parameter search and real-data calibration, `report` the leaderboard; disjoint."""

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called as progress(samples scored, samples in all, {}) after every batch."""


class DataError(Exception):
    """Data that is missing or broken: one sentence with the place and the way out."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How a model is scored: against which reference, in what batches, and what is kept of it."""

    reference: Tensor | None = None
    """The full-precision model's outputs on the same split, for agreement (and, of classifiers, KL). Without
    it the backbone's own model runs beside the scored one."""
    batch_size: int = 32
    """Images per forward pass, at most."""
    keep_outputs: bool = False
    """Whether `Evaluation.outputs` is filled, to serve as a reference."""
    progress: Progress | None = None


@dataclass(frozen=True)
class Evaluation:
    """How one model did on one split."""

    metrics: Mapping[str, float]
    """Name -> value; accuracies and agreements in percent, `kl` in nats. Plain floats."""
    outcomes: Mapping[str, Tensor]
    """Name -> one value per sample (bool for right/wrong, else float32), in the split's fixed order."""
    sample_ids: tuple[str, ...]
    """Name of each sample, so that two records are compared image by image only when these agree."""
    outputs: Tensor | None = None
    """Kept for the full-precision reference: (n, classes) float32 logits of a classifier, or a detector's
    `tasks.detection_scoring.rows_of` (n, 100, 6)."""
    notes: tuple[str, ...] = ()
    """What a reader of the record should know: skipped files, converted images."""
    shown: Tensor | None = None
    """A detector's rows (few, 100, 6) on the first samples, kept to be drawn."""


@dataclass(frozen=True)
class SplitFacts:
    """What a split consists of, for the stage key and the record."""

    sample_count: int
    digest: str
    """SHA-256 over the samples' names, sizes and labels: a changed folder changes the stage key."""
    labelled: bool
    whole: bool
    """True when it is the data set's whole official evaluation set."""
    description: str = ""
    one_in: int = 1
    """The split holds one of so many of the folder's images: to have n, the folder needs n * `one_in`."""
    notes: tuple[str, ...] = ()
    """What was left out of the folder or of the split: one sentence for each kind."""


class Task(ABC):
    """A data set with a metric. Built in every process that needs it, from the folder alone."""

    name: ClassVar[str]
    primary_metric: ClassVar[str]
    """The metric that ranks: `top1`, `ap` for detectors, or `agreement` for unlabelled images."""
    data_name: ClassVar[str | None]
    """The NAME of `--data NAME=DIR`; None when the data ships with a dependency."""
    needs_own_backbones: ClassVar[bool] = True
    """Whether its labels mean something only to a backbone that was trained on the data set of its name."""
    detects: ClassVar[bool] = False
    """Whether its backbones are detectors; they are classifiers otherwise."""
    unlabelled_fallback: ClassVar[str | None] = None
    """Name of the task that takes its place where only that task's data was given."""
    outputs_dtype: ClassVar[Literal["float16", "float32"]] = "float16"
    """What the reference's outputs are stored as: half precision tells logits apart, but not boxes."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    @abstractmethod
    def facts(self, split: Split) -> SplitFacts:
        """What the split holds; opens a picture only to tell equal ones apart.

        Raises DataError when the data is not there or broken.
        """

    @abstractmethod
    def evaluate(
        self,
        model: nn.Module,
        backbone: Backbone,
        split: Split,
        options: EvaluationOptions = EvaluationOptions(),
    ) -> Evaluation:
        """Score `model` on a split, its images prepared as the backbone's data configuration says.

        Raises DataError when the data is missing or broken, or the backbone does not fit it.
        """

    @abstractmethod
    def calibration_images(self, backbone: Backbone, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """`count` images (n, C, H, W) of the `tune` split in normalized space, and labels, by seed.

        Labels are classes (n,), or for detectors rows (n, 100, 5) of class, centre x, centre y, width and
        height in shares of the canvas, class -1 where a row is unused. Raises DataError when the split is
        smaller.
        """

    def picture_files(self) -> Mapping[str, Path]:
        """Printable name -> file of every picture of both splits; empty where the task reads no such files.

        Raises DataError when the data is missing or broken.
        """
        return {}

    def given_folder(self) -> Path:
        """The folder the user gave; raises DataError when there is none."""
        if self.folder is None:
            raise DataError(f"no data for the task {self.name}: give --data {self.data_name}=DIR")
        if not self.folder.is_dir():
            raise DataError(f"no folder {self.folder}: give --data {self.data_name}=DIR")
        return self.folder
