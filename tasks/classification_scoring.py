"""Scores a classifier image by image against labels and against the full-precision model.

    top1, top5   the label is the first, or among the first five, answers; percent
    agreement    the model and the full-precision model give the same first answer; percent
    kl           mean KL(P || Q) over the softmax of both, P being the full-precision model; nats

An image with a logit that is not finite counts as wrong everywhere, is left out of the mean KL and noted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backbones.base import Backbone
from tasks.base import DataError, EvaluationOptions

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """Consecutive samples of a split."""

    images: Tensor
    """(B, C, H, W), normalized."""
    labels: Tensor
    """(B,) int64; -1 where the image has no label."""


@dataclass(frozen=True)
class Scores:
    """What scoring found, in the order of the batches."""

    metrics: dict[str, float]
    outcomes: dict[str, Tensor]
    outputs: Tensor | None
    notes: tuple[str, ...]


def score(
    model: nn.Module,
    backbone: Backbone,
    batches: Iterable[Batch],
    options: EvaluationOptions = EvaluationOptions(),
    *,
    total: int,
    labelled: bool = True,
) -> Scores:
    """Run `model` over `batches` of `total` images in inference mode, on the device of the backbone.

    `options.reference` holds logits (n, classes); its batch size is not read, the batches have theirs. Raises
    DataError when the reference belongs to another number of images, or there are none.
    """
    import torch

    columns: dict[str, list[Tensor]] = {}
    outputs: list[Tensor] = []
    done = 0
    with torch.inference_mode():
        for batch in batches:
            images = batch.images.to(backbone.device)
            logits = model(images).float()
            expected = _expected_logits(model, backbone, images, logits, options.reference, done)
            found = compare(logits, expected)
            if labelled:
                found |= rank_labels(logits, batch.labels.to(backbone.device))
            for name, values in found.items():
                columns.setdefault(name, []).append(values)
            if options.keep_outputs:
                outputs.append(logits)
            done += len(images)
            if options.progress is not None:
                options.progress(done, total, {})
        per_sample = {name: torch.cat(values).cpu() for name, values in columns.items()}
    if not done:
        raise DataError("there is no image to score")
    if options.reference is not None and len(options.reference) != done:
        raise DataError(_other_images(len(options.reference), done))
    finite = per_sample.pop("finite")
    broken = int((~finite).sum())
    notes = (f"{broken} of {done} images gave logits that are not finite; they count as wrong",)
    return Scores(
        metrics=_means(per_sample, finite),
        outcomes=per_sample,
        outputs=torch.cat(outputs).cpu() if options.keep_outputs else None,
        notes=notes if broken else (),
    )


def rank_labels(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """`top1` and `top5`, each (B,) bool."""
    finite = logits.isfinite().all(dim=1)
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = (best == labels.unsqueeze(1)) & finite.unsqueeze(1)
    return {"top1": hits[:, 0], "top5": hits.any(dim=1)}


def compare(logits: Tensor, expected: Tensor) -> dict[str, Tensor]:
    """`agreement` (B,) bool and `kl` (B,) in nats between two sets of logits (B, classes).

    `finite` (B,) bool tells where both sets are finite; elsewhere `agreement` is false and `kl` is nan.
    """
    finite = logits.isfinite().all(dim=1) & expected.isfinite().all(dim=1)
    same = logits.topk(1, dim=1).indices == expected.topk(1, dim=1).indices
    log_p, log_q = expected.log_softmax(dim=1), logits.log_softmax(dim=1)
    # Rounding makes the divergence of equal distributions a tiny negative number.
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=1).clamp_min(0)
    return {
        "agreement": same[:, 0] & finite,
        "kl": kl.masked_fill(~finite, float("nan")),
        "finite": finite,
    }


def _expected_logits(
    model: nn.Module, backbone: Backbone, images: Tensor, logits: Tensor, reference: Tensor | None, done: int
) -> Tensor:
    if reference is not None:
        rows = reference[done : done + len(images)]
        if rows.shape != logits.shape:
            raise DataError(_other_images(len(reference), done + len(images)))
        return rows.to(logits)
    return logits if model is backbone.model else backbone.model(images).float()


def _means(per_sample: dict[str, Tensor], finite: Tensor) -> dict[str, float]:
    """Percentages of the outcomes and the mean divergence; no `kl` where every image is broken."""
    metrics = {
        name: 100 * values.double().mean().item() for name, values in per_sample.items() if name != "kl"
    }
    if finite.any():
        metrics["kl"] = per_sample["kl"][finite].double().mean().item()
    return metrics


def _other_images(rows: int, images: int) -> str:
    return f"the full-precision logits hold {rows} rows, but {images} images were read: evaluate it again"
