"""Classification of scikit-learn's handwritten digits, the task of the models that the project ships."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backbones.base import Backbone
from backbones.digits.images import Digits as DigitsData
from backbones.digits.images import load_digits_split, read_digits_split
from backbones.preprocessing.pixels import normalized
from tasks.base import DataError, Evaluation, EvaluationOptions, Split, SplitFacts, Task
from tasks.classification_scoring import Batch, score

if TYPE_CHECKING:
    from torch import Tensor, nn


class Digits(Task):
    """Ten digits, 16 x 16 pixels, one channel: 297 samples to tune, 500 to report."""

    name = "digits"
    primary_metric = "top1"
    data_name = None

    def facts(self, split: Split) -> SplitFacts:
        """`report` is the whole evaluation set: the digits models saw none of it."""
        digits = read_digits_split(split)
        found = hashlib.sha256()
        for position, label in zip(digits.positions, digits.labels.tolist(), strict=True):
            found.update(f"{position}\0{label}\n".encode())
        found.update(digits.images.tobytes())
        return SplitFacts(
            sample_count=len(digits.positions),
            digest=found.hexdigest(),
            labelled=True,
            whole=split == "report",
            description=f"{len(digits.positions)} of scikit-learn's digits",
        )

    def evaluate(
        self,
        model: nn.Module,
        backbone: Backbone,
        split: Split,
        options: EvaluationOptions = EvaluationOptions(),
    ) -> Evaluation:
        """Score `model`; raises DataError for a backbone that was trained on other data."""
        _refuse_other(backbone)
        digits = load_digits_split(split)
        scores = score(
            model,
            backbone,
            _batches(digits, backbone, options.batch_size),
            options,
            total=len(digits.positions),
        )
        names = tuple(f"digits/{position}" for position in digits.positions)
        return Evaluation(scores.metrics, scores.outcomes, names, scores.outputs, scores.notes)

    def calibration_images(self, backbone: Backbone, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """`count` samples of the tune split and their labels, drawn by `seed`."""
        import torch

        _refuse_other(backbone)
        digits = load_digits_split("tune")
        if count > len(digits.positions):
            raise DataError(
                f"{count} images are asked for, but the tune split of digits holds {len(digits.positions)}"
            )
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(digits.positions), generator=generator)[:count]
        return normalized(digits.images[drawn], backbone.data), digits.labels[drawn]


def _batches(digits: DigitsData, backbone: Backbone, batch_size: int) -> Iterator[Batch]:
    import torch

    images = torch.split(normalized(digits.images, backbone.data), batch_size)
    for part, labels in zip(images, torch.split(digits.labels, batch_size), strict=True):
        yield Batch(part, labels)


def _refuse_other(backbone: Backbone) -> None:
    if backbone.spec.dataset != "digits":
        raise DataError(
            f"{backbone.spec.name} was trained on {backbone.spec.dataset}: the task digits needs a "
            "backbone trained on digits"
        )
