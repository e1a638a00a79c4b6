"""What a stage says of its artifact: typed, and written to the store and read from it here alone.

    Facts              where it was made
      SynthesisFacts   a set of images
        TrainingFacts  a training on them, between two epochs
          StudentFacts a quantized model
      EvaluationFacts  a score

A plug-in's stage kind brings a frozen dataclass of its own that derives from `Facts`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import Damaged
from harness.store import Store
from methods.base import GradientShares
from results.record import SEVERAL

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Environment:
    """Where an artifact was made."""

    packages: Mapping[str, str]
    """Distribution -> version, of those that decide a number."""
    python: str
    """Version of the interpreter."""
    device: str
    """Name of the GPU, or `cpu` with the machine's architecture."""
    threads: int
    """CPU threads that the stage used."""
    precision: str = "exact"
    """`exact`, or `fast`; see `harness.stages.precision`."""
    gpu_stack: Mapping[str, str] = field(default_factory=dict)
    """`cuda`, `cudnn` and `driver` -> version; empty on a CPU."""
    unrepeatable: tuple[str, ...] = ()
    """Operations of the stage whose bits may differ from run to run on the same device."""

    def as_text(self) -> dict[str, str]:
        """One flat mapping, as records keep it."""
        return {
            **self.packages,
            "python": self.python,
            "device": self.device,
            "threads": str(self.threads),
            "precision": self.precision,
            **self.gpu_stack,
            **({"unrepeatable": ", ".join(self.unrepeatable)} if self.unrepeatable else {}),
        }


@dataclass(frozen=True)
class Cost:
    """What an artifact cost, its parents included; None where that kind of work took no part.

    What was taken on two devices is never added up: such an amount is None too, and `devices` names both.
    """

    synthesis_seconds: float | None = None
    quantization_seconds: float | None = None
    """Calibration and training, without synthesis and without what only looked at the student."""
    evaluation_seconds: float | None = None
    synthesis_gpu_seconds: float | None = None
    """Seconds times the GPUs that a stage held, a fraction where it shared one; None on a CPU."""
    quantization_gpu_seconds: float | None = None
    peak_memory_mb: float | None = None
    """The highest peak of all, of the process on a CPU, of the allocator on a GPU."""
    devices: Mapping[str, str] = field(default_factory=dict)
    """Amount -> the device that it was taken on, or several, joined by `SEVERAL`."""

    @property
    def making_seconds(self) -> float | None:
        """Seconds of synthesis and quantization together; None where these were on different devices."""
        return self._making("synthesis_seconds", "quantization_seconds")

    @property
    def making_gpu_seconds(self) -> float | None:
        """The same in GPU seconds."""
        return self._making("synthesis_gpu_seconds", "quantization_gpu_seconds")

    def _making(self, *names: str) -> float | None:
        there = [name for name in names if self._has(name)]
        where = {self.devices.get(name) for name in there}
        amounts = [getattr(self, name) for name in there]
        return math.fsum(amounts) if amounts and len(where) == 1 and None not in amounts else None

    def plus(self, other: Cost) -> Cost:
        """The cost of both: sums of seconds, the higher of the memory peaks, each on one device."""
        amounts: dict[str, float] = {}
        devices: dict[str, str] = {}
        for name in COSTS:
            takers = [cost for cost in (self, other) if cost._has(name)]
            known = [value for cost in takers if (value := getattr(cost, name)) is not None]
            where = sorted({d for cost in takers for d in cost.devices.get(name, "").split(SEVERAL)})
            if any(where):
                devices[name] = SEVERAL.join(where)
            if known and len(known) == len(takers) and len(where) == 1:
                amounts[name] = max(known) if name == "peak_memory_mb" else math.fsum(known)
        return Cost(**amounts, devices=devices)

    def without(self, *names: str) -> Cost:
        """This cost without some of its amounts."""
        kept = {name: value for name, value in self.known().items() if name not in names}
        return Cost(**kept, devices={name: at for name, at in self.devices.items() if name not in names})

    def known(self) -> dict[str, float]:
        """Name -> value of what was measured, on one device."""
        return {name: value for name in COSTS if (value := getattr(self, name)) is not None}

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None or name in self.devices


COSTS = tuple(field.name for field in dataclasses.fields(Cost) if field.name != "devices")
"""Names of the amounts."""
TRAINING_COSTS = ("quantization_seconds", "quantization_gpu_seconds")
SYNTHESIS_COSTS = ("synthesis_seconds", "synthesis_gpu_seconds")


@dataclass(frozen=True)
class StudentRecipe:
    """All that is needed to build a quantized model again, before its state is loaded."""

    engine: str
    """Name of the registered engine."""
    engine_config: Mapping[str, Any]
    """Every hyper-parameter of the engine."""
    bits: str
    """Weight and activation widths, such as `w4a4`."""
    scope: str
    """Which parts of a detector are quantized alike; see `methods.scope`."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> StudentRecipe:
        """The recipe that the settings of a `quantize` stage hold."""
        return cls(**{f.name: settings[f.name] for f in dataclasses.fields(cls)})


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What every artifact says of itself."""

    environment: Environment

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, every field included."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls: type[AnyFacts], data: object) -> AnyFacts:
        """The inverse of `to_json`; raises ValueError for unknown and for missing keys, at any depth."""
        return _read(cls, data)


AnyFacts = TypeVar("AnyFacts", bound=Facts)
AnyImages = TypeVar("AnyImages", bound="SynthesisFacts")
_Data = TypeVar("_Data")


@dataclass(frozen=True, kw_only=True)
class SynthesisFacts(Facts):
    """What is known of a set of images; its cost includes that of the sets of the student before it."""

    cost: Cost
    synthetic_images: int
    """Number of images."""
    final_losses: Mapping[str, float]
    """Loss term -> its value at the last iteration, averaged over the batches."""
    gradient_shares: GradientShares = field(default_factory=GradientShares)
    """What each loss term moved."""
    epoch: int = 0
    """Epoch of the student's training that the set was made for."""
    notes: tuple[str, ...] = ()
    """What a reader of the record should know."""

    def after(self: AnyImages, before: SynthesisFacts) -> AnyImages:
        """These facts with the cost and the notes of a set that came before."""
        return dataclasses.replace(
            self, cost=self.cost.plus(before.cost), notes=tuple(dict.fromkeys((*before.notes, *self.notes)))
        )


@dataclass(frozen=True, kw_only=True)
class TrainingFacts(SynthesisFacts):
    """What is known of a training between two epochs, and of the set that it stands at, whoever made that.

    Its cost is that of everything up to here.
    """

    oracle: float | None = None
    """Best score over the epochs on the report split (percent), where somebody asked for it."""


@dataclass(frozen=True, kw_only=True)
class StudentFacts(TrainingFacts):
    """What is known of a quantized model, and of the last set that it was made from."""

    recipe: StudentRecipe


@dataclass(frozen=True, kw_only=True)
class EvaluationFacts(Facts):
    """What is known of a score."""

    metrics: Mapping[str, float]
    """Metric -> value; accuracies and agreements in percent."""
    metric: str
    """The metric that ranks."""
    images: int
    """Number of images that were evaluated."""
    samples: str
    """Digest of the samples; of synthetic images the key of their stage."""
    whole: bool
    """Whether the samples are the data set's whole official evaluation set."""
    labelled: bool
    """Whether the samples have true labels."""
    cost: Cost
    images_per_second: float
    synthetic_images: int = 0
    """Number of images that the student was made from; 0 for full precision."""
    gradient_shares: Mapping[str, float] = field(default_factory=dict)
    """Loss term -> its mean share of the gradient of these images."""
    finished_at: str
    """ISO 8601, UTC."""
    notes: tuple[str, ...] = ()
    """What a reader of the record should know, of the student and its images too."""

    def costs(self) -> dict[str, float]:
        """Name -> value of every cost and count, as records keep them."""
        return {
            **self.cost.known(),
            "images_per_second": self.images_per_second,
            "synthetic_images": self.synthetic_images,
        }


def write_artifact(
    store: Store,
    key: str,
    tensors: Mapping[str, Tensor],
    facts: Facts,
    images: Mapping[str, Tensor] | None = None,
    **head: str | float,
) -> None:
    """Publish what a stage made; `head` is what a person reads first in the file, and no fact."""
    store.write(key, tensors, {**head, "facts": facts.to_json()}, images)


def read_facts(store: Store, key: str, kind: type[AnyFacts]) -> AnyFacts:
    """The facts of an artifact; raises ArtifactError when absent, Damaged when of another kind too."""
    return _facts_in(store.meta(key), store, key, kind)


def verified_facts(store: Store, key: str, kind: type[AnyFacts]) -> AnyFacts:
    """The facts of an artifact whose tensors are whole too; raises as `read_facts` does."""
    return _facts_in(store.verify(key), store, key, kind)


def _facts_in(meta: Mapping[str, Any], store: Store, key: str, kind: type[AnyFacts]) -> AnyFacts:
    try:
        return kind.from_json(meta.get("facts"))
    except ValueError as error:
        raise Damaged.at(store.place(key), str(error)) from None


def evaluation_facts(store: Store, key: str) -> EvaluationFacts:
    """The facts of a score; raises ArtifactError as `read_facts` does."""
    return read_facts(store, key, EvaluationFacts)


def student_facts(store: Store, key: str) -> StudentFacts:
    """The facts of a quantized model; raises ArtifactError as `read_facts` does."""
    return read_facts(store, key, StudentFacts)


def training_facts(store: Store, key: str) -> TrainingFacts:
    """The facts of a training between two epochs; raises ArtifactError as `read_facts` does."""
    return read_facts(store, key, TrainingFacts)


def synthesis_facts(store: Store, key: str) -> SynthesisFacts:
    """The facts of a set of images; raises ArtifactError as `read_facts` does."""
    return read_facts(store, key, SynthesisFacts)


def images_facts(store: Store, key: str) -> SynthesisFacts:
    """The facts of whatever holds a set of images, a student among them; raises ArtifactError."""
    for kind in (SynthesisFacts, TrainingFacts):
        with contextlib.suppress(Damaged):
            return read_facts(store, key, kind)
    return student_facts(store, key)


def _read(cls: type[_Data], data: object) -> _Data:
    """A dataclass from the JSON of its fields."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{cls.__name__} is no mapping of names to values")
    wanted = _fields(typing.cast(type, cls))
    if set(data) != set(wanted):
        unknown, missing = sorted(set(data) - set(wanted)), sorted(set(wanted) - set(data))
        faults = [f"unknown {', '.join(unknown)}"] * bool(unknown)
        faults += [f"missing {', '.join(missing)}"] * bool(missing)
        raise ValueError(f"{cls.__name__} has other keys than it should: {'; '.join(faults)}")
    return cls(**{name: _value(f"{cls.__name__}.{name}", wanted[name], data[name]) for name in wanted})


@functools.cache
def _fields(cls: type) -> dict[str, Any]:
    """Name -> type of a dataclass's fields; looked up once, since a run reads thousands of facts."""
    return typing.get_type_hints(cls)


def _value(name: str, wanted: Any, value: object) -> Any:
    """One field's value, as the type that its annotation names."""
    if dataclasses.is_dataclass(wanted):
        return _read(typing.cast(type, wanted), value)
    kinds = _json_types(wanted)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{name} is {value!r}")
    return tuple(value) if isinstance(value, list) else value


@functools.cache
def _json_types(wanted: Any) -> tuple[type, ...]:
    """What JSON gives for a field of this type."""
    if isinstance(wanted, types.UnionType):
        return tuple(kind for part in typing.get_args(wanted) for kind in _json_types(part))
    origin = typing.get_origin(wanted) or wanted
    if origin is tuple:
        return (list, tuple)
    return (int, float) if origin is float else (origin,)
