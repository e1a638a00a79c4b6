"""What a stage is: one piece of work, where it runs, what it gives and how it ends.

Knows nothing about the work itself: that is looked up by the stage's kind (`harness.stages.kinds`).
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.stages.facts import Facts
from harness.stages.progress import StageProgress
from harness.store import Store

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backbones import Backbone

Kind = str
"""Name of a registered stage kind: `synthesize`, `train`, `quantize`, `evaluate`, or a plug-in's."""
Status = Literal["done", "cached", "failed", "out_of_memory", "stopped", "skipped"]


@dataclass(frozen=True)
class Way:
    """Stages that only lead to others, such as the links of a training: dropped once those stand."""

    goals: tuple[Stage, ...]
    """What they lead to; nobody else needs them once all of these are made."""
    keys: tuple[str, ...]
    """Keys of the stages."""


@dataclass(frozen=True)
class Stage:
    """One piece of work whose answer depends on `settings` and on its parents' artifacts alone."""

    kind: Kind
    label: str
    """What a person reads: `maskaq on deit_tiny, seed 0`."""
    settings: Mapping[str, Any]
    """Plain JSON values."""
    parents: Mapping[str, str]
    """Role -> key of the stage whose artifact is read."""
    key: str
    after: tuple[str, ...] = ()
    """Keys that must be there first although they do not enter the answer."""
    ways: tuple[Way, ...] = ()
    """The ways that it lies on, and those that end with it."""

    @property
    def awaited(self) -> tuple[str, ...]:
        """Keys of all stages that have to be done before this one starts."""
        return (*self.parents.values(), *self.after)

    def timing_name(self, device: str) -> str:
        """Stages with this name take about as long as each other, on one kind of device."""
        names = (self.settings.get(name) for name in ("engine", "synthesizer"))
        who = "+".join(name for name in names if name) or self.settings.get("task")
        scale = [*self.settings.get("config", {}).items(), *self.settings.get("engine_config", {}).items()]
        size = {k: v for k, v in scale if isinstance(v, int) and not isinstance(v, bool)}
        work = [size, self.settings.get("samples")]
        tail = hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()[:6]
        where = device.partition(":")[0]
        return f"{self.kind}:{who}:{self.settings.get('backbone')}:{tail}:{where}"


@dataclass(frozen=True)
class StageResult:
    """How a stage ended."""

    key: str
    status: Status
    seconds: float = 0.0
    """Wall-clock in this run; 0 where nothing was done."""
    reason: str = ""
    """Why there is no artifact, one line; empty where there is one."""


@dataclass(frozen=True)
class Artifact:
    """What a stage makes."""

    tensors: Mapping[str, Tensor]
    facts: Facts
    images: Mapping[str, Tensor] | None = None
    """A set of images beside them, which lies apart."""


class Watch(Protocol):
    """Scores a student while it trains, for a search that may stop it; leaves no trace in the answer."""

    @property
    def reports(self) -> int:
        """At most so many values per training, equally spaced over the epochs."""
        ...

    def score(self, student: nn.Module, teacher: Backbone, context: RunContext, store: Store) -> float:
        """The value of the student as it is now."""
        ...


@dataclass(frozen=True)
class Claimant:
    """The process whose run makes a stage, wherever its workers are."""

    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

    @classmethod
    def of(cls, said: Mapping[str, Any] | None) -> Claimant | None:
        """Who holds a claim, from what `Store.claimant` gives; None where nobody says so."""
        return cls(said["process"], said["host"]) if said else None


@dataclass(frozen=True)
class RunContext:
    """Everything a stage needs beside its settings; travels to workers as it is."""

    store: Path
    """Folder of the store."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """Backbone -> weight file, resolved."""
    data: Mapping[str, Path] = field(default_factory=dict)
    """Data name -> folder, as in `--data imagenet=DIR`."""
    plugins: tuple[Path, ...] = ()
    """Plug-in files that workers load first."""
    device: str = "cpu"
    """A torch device; `auto` until a scheduler knows what its workers have."""
    threads: int = 1
    """CPU threads per stage."""
    at_once: int = 0
    """How many stages can run side by side, for a scheduler that fits threads to its nodes; 0: as given."""
    gpus_per_trial: float = 0.0
    """GPUs that a stage holds where it uses one."""
    gpus_by_memory: bool = False
    """Whether it holds the part of one that its memory is estimated to need, `gpus_per_trial` at most."""
    accelerator: str = ""
    """Kind of the GPUs, such as `H100`; empty for any."""
    ship_code: bool = False
    """Whether the project and its plug-ins travel to a cluster's nodes with the run."""
    project: Path | None = None
    """Where workers find the project, if it is not the one of their node."""
    batch_size: int = 32
    """Images per forward pass in evaluation and calibration."""
    parts: int = 1
    """Parts that every batch goes through a model in; more of them after memory ran out."""
    watch: Watch | None = None
    """What a search looks at while students train."""
    stage_timeout: float | None = None
    """Seconds that a stage may take, 0 for any; None makes it a multiple of what such stages took."""
    claimant: Claimant = field(default_factory=Claimant)
    """The run that the stages are made for."""
    modules: tuple[str, ...] = ()
    """Importable modules whose `STAGE_KINDS` every process registers first."""

    @property
    def images_at_once(self) -> int:
        """Images per forward pass in evaluation, of the parts of a batch."""
        return max(1, self.batch_size // self.parts)

    def notes(self) -> tuple[str, ...]:
        """What a record should say of how a stage came about here."""
        return (f"memory ran out: batches went through in {self.parts} parts",) if self.parts > 1 else ()


StageFunction = Callable[[Stage, RunContext, Store, StageProgress], Artifact]
"""Does the work of a stage: reads its parents from the store, says how far it is, gives its artifact."""
