"""What was asked for in a trial, and its record: under which protocol it ran, how good, at what cost.

Plain data that survives JSON; knows nothing about where it is kept (`harness.store`, `results.tracking`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from results.statistics import unpack_outcomes, unpack_scores

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Made = TypeVar("_Made", bound="DataclassInstance")
SEVERAL = " + "
"""What joins the devices on which one cost was taken."""
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

    @property
    def label(self) -> str:
        """`maskaq (lsq_qat) digits_vit w4a4 seed 0`."""
        if self.engine == "none":
            return f"{self.method} {self.backbone}"
        return f"{self.method} ({self.engine}) {self.backbone} {self.bits} seed {self.seed}"

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
    """synthesis_seconds, quantization_seconds and evaluation_seconds, the first two in GPU seconds too,
    images_per_second, peak_memory_mb, synthetic_images. What was taken on several devices is left out."""
    cost_devices: Mapping[str, str] = field(default_factory=dict)
    """Cost -> the device that it was taken on, or several, joined by `SEVERAL`."""
    gradient_shares: Mapping[str, float] = field(default_factory=dict)
    """Loss term of the synthesis -> norm of its gradient over that of the whole, mean over iterations."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Versions, device, threads."""
    notes: tuple[str, ...] = ()
    """Departures a reader should know."""
    finished_at: str = ""
    """ISO 8601, UTC."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Short hash of the protocol: rows are ranked together only where it agrees."""
        canonical = json.dumps(self.protocol, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:8]

    @property
    def quantizes_heads_alike(self) -> bool:
        """Whether neck and heads have the row's bits too, as in papers' tables; the protocol's scope says."""
        engine = self.protocol.get("engine", {})
        return not isinstance(engine, Mapping) or bool(engine.get("scope", "whole") == "whole")

    def to_json(self) -> dict[str, Any]:
        """A dict that `json.dumps` takes; what it holds is the record's own."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`; raises ValueError for other fields, and for values that no record has."""
        made = read_fields(cls, data, "record")
        for unpack, packed in ((unpack_outcomes, made.outcomes), (unpack_scores, made.scores)):
            for text in packed.values():
                try:
                    unpack(text, made.images)
                except ValueError:
                    raise ValueError(
                        f"not a record: its outcomes are not those of {made.images} images"
                    ) from None
        return made


def read_fields(cls: type[_Made], data: object, what: str) -> _Made:
    """A dataclass of plain values from the JSON of its fields; raises ValueError for other fields and values.

    `what` is what the error calls it.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"no {what}, which maps the names of its fields to values")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    needed = {name for name, field in fields.items() if field.default is field.default_factory}
    kinds = _types_of(cls)
    faults = {
        "unknown": set(data) - set(fields),
        "missing": needed - set(data),
        "damaged": {name for name in set(data) & set(fields) if not _fits(data[name], kinds[name])},
    }
    if any(faults.values()):
        said = [f"{kind} {', '.join(sorted(map(_quoted, n)))}" for kind, n in faults.items() if n]
        raise ValueError(f"not a {what} of this version: fields {'; '.join(said)}")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})


@functools.cache
def _types_of(cls: type) -> dict[str, Any]:
    """Name -> type of a dataclass's fields; looked up once, since a table reads thousands of records."""
    return typing.get_type_hints(cls)


def _quoted(name: object) -> str:
    """A field's name as an error shows it."""
    return json.dumps(str(name)[:60]).strip('"')


def _fits(value: object, wanted: Any) -> bool:
    """Whether a value out of JSON is one of a field's type."""
    origin, parts = typing.get_origin(wanted) or wanted, typing.get_args(wanted)
    if wanted is Any:
        return True
    if origin is Literal:
        return value in parts
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items()
        )
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(entry, parts[0]) for entry in value)
    if origin is types.UnionType:
        return any(_fits(value, part) for part in parts)
    if origin in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        return whole or (origin is float and isinstance(value, float))
    return isinstance(value, origin)
