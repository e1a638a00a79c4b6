"""What was asked for in a trial, and its record: under which protocol it ran, how good, at what cost.

Plain data that survives JSON; knows nothing about where it is kept (`harness.store`, `results.tracking`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "failed", "out_of_memory", "missing"]


@dataclass(frozen=True, kw_only=True)
class TrialIdentity:
    """What was asked for: one path through synthesis, quantization and evaluation, known before it runs."""

    trial: str
    """Content key of the trial's evaluation."""
    method: str
    """Preset name, such as `maskaq`."""
    synthesizer: str
    """Name of the synthesizer, or `none` for full precision."""
    engine: str
    """Name of the engine, or `none` for full precision."""
    backbone: str
    bits: str
    """`w4a4`, or `fp32`."""
    task: str
    track: str
    """`published` (a method with its own engine) or `controlled` (the grid synthesizer x engine)."""
    budget: str
    """`paper`, `fast` or `smoke`."""
    seed: int
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`synthesizer` and `engine` -> every hyper-parameter as run."""
    weights_sha256: str = ""
    data_use: str = "none"
    """What the method saw beyond the teacher: none, class names, own images, real images."""
    split: str = "report"
    """What was evaluated: `report`; in a search `tune`, or `synthetic` images that the teacher labels."""
    tuning: Mapping[str, Any] = field(default_factory=dict)
    """How a search found the settings (trials, objective, study); empty where none did."""

    def identity(self) -> dict[str, Any]:
        """The fields of the identity alone, by name; a record of the trial starts with them."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(TrialIdentity)}


@dataclass(frozen=True, kw_only=True)
class Record(TrialIdentity):
    """A trial and its result, or why it has none; in JSON both lie flat in one object."""

    status: Status
    reason: str = ""
    """Why there is no result; empty when status is ok."""
    metric: str = "top1"
    """The metric that ranks this row."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """top1, top5, agreement (percent), kl (nats), oracle_top1 where measured; of detectors ap, ap50, ap75,
    ap_small, ap_medium, ap_large and the same with mask_ (percent) instead of top1, top5 and kl."""
    images: int = 0
    """Number of evaluated images."""
    outcomes: Mapping[str, str] = field(default_factory=dict)
    """Name -> base64 of a packed bitmap (numpy.packbits) of right and wrong per image."""
    scores: Mapping[str, str] = field(default_factory=dict)
    """The ranking metric, where it is a number from 0 to 1 per image -> base64 of float16s."""
    samples_digest: str = ""
    """SHA-256 of the evaluated samples; paired tests need it to be equal."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """What is quantized and how, the transform, the calibration set, the full-precision score."""
    cost: Mapping[str, float] = field(default_factory=dict)
    """synthesis_seconds, quantization_seconds, evaluation_seconds, images_per_second, peak_memory_mb,
    synthetic_images."""
    gradient_shares: Mapping[str, float] = field(default_factory=dict)
    """Loss term of the synthesis -> norm of its gradient over that of the whole, mean over iterations."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Versions, device, threads."""
    notes: tuple[str, ...] = ()
    """Departures a reader should know."""
    finished_at: str = ""
    """ISO 8601, UTC."""

    @property
    def fingerprint(self) -> str:
        """Short hash of the protocol: rows are ranked together only where it agrees."""
        canonical = json.dumps(self.protocol, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:8]

    @property
    def quantizes_heads_alike(self) -> bool:
        """Whether neck and heads have the row's bits too, as in papers' tables; the protocol's scope says."""
        return bool(self.protocol.get("engine", {}).get("scope", "whole") == "whole")

    def to_json(self) -> dict[str, Any]:
        """A dict that `json.dumps` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`; unknown keys are refused with a ValueError."""
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ValueError(f"not a record of this version: unknown fields {', '.join(unknown)}")
        values = dict(data)
        values["notes"] = tuple(values.get("notes", ()))
        return cls(**values)
