"""Records and outcomes for the tests of results."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from results.record import Record
from results.statistics import pack_outcomes, pack_scores

OUTCOMES = {"psaq_vit": "1110000000", "maskaq": "1111111000", "fp32": "1111111111", "real_data": "1111111110"}


def bits_of(text: str) -> list[bool]:
    """'110' -> [True, True, False]."""
    return [character == "1" for character in text]


def record(method: str = "psaq_vit", right: str | Sequence[bool] | None = None, **changes: Any) -> Record:
    """An evaluated trial, right on these images; the trial key follows from the rest."""
    right = right if right is not None else OUTCOMES.get(method, "1111000000")
    right = bits_of(right) if isinstance(right, str) else list(right)
    is_fp32 = method == "fp32"
    base = Record(
        trial="",
        method=method,
        synthesizer="none" if is_fp32 else method,
        engine="none" if is_fp32 else "psaq_ptq",
        backbone="deit_tiny",
        bits="fp32" if is_fp32 else "w4a4",
        task="imagenet",
        track="published",
        budget="fast",
        seed=0,
        status="ok",
        metrics={"top1": 100 * sum(right) / len(right), "agreement": 50.0, "kl": 0.5},
        images=len(right),
        outcomes={"top1": pack_outcomes(right)},
        samples_digest="digest",
        settings={} if is_fp32 else {"synthesizer": {"iterations": 300}, "engine": {"batch_size": 32}},
        protocol={} if is_fp32 else {"softmax": "not quantized"},
        weights_sha256="weights",
        data_use="real images" if method == "real_data" else "none",
        cost={"synthesis_seconds": 60.0, "quantization_seconds": 5.0, "synthetic_images": 32.0},
        environment={"torch": "2.15"},
        finished_at="2026-11-23T10:00:00Z",
    )
    made = dataclasses.replace(base, **changes)
    key = hashlib.sha256(repr(dataclasses.replace(made, finished_at="")).encode()).hexdigest()[:16]
    return dataclasses.replace(made, trial=changes.get("trial", key))


def detection(
    method: str = "real_data", image_ap: Sequence[float] = (1.0, 0.5, 0.5, 0.0), **changes: Any
) -> Record:
    """An evaluated trial of a detector, with the AP of each image alone."""
    mean = 100 * sum(image_ap) / len(image_ap)
    facts: dict[str, Any] = {
        "backbone": "maskrcnn_swin_tiny",
        "engine": "none" if method == "fp32" else "repq_ptq",
        "task": "coco",
        "metric": "ap",
        "metrics": {
            "ap": mean,
            "ap50": mean + 20,
            "ap75": mean + 1.25,
            "mask_ap": mean - 4,
            "agreement": 90.0,
        },
        "images": len(image_ap),
        "outcomes": {},
        "scores": {"ap": pack_scores(image_ap)},
    }
    return record(method, "1", **{**facts, **changes})


def failed(method: str = "maskaq", reason: str = "the loss is not finite", **changes: Any) -> Record:
    """A trial that gave nothing."""
    nothing: dict[str, Any] = {
        "status": "failed",
        "metrics": {},
        "images": 0,
        "outcomes": {},
        "samples_digest": "",
        "protocol": {},
        "weights_sha256": "",
        "cost": {},
    }
    return record(method, reason=reason, **{**nothing, **changes})
