"""The contracts of a method: a synthesizer makes images, an engine makes the quantized model.

    Method (a preset) = Synthesizer + Engine + where each part comes from
    Synthesizer: SynthesisTask -> SyntheticImages
    Engine:      QuantizationTask -> student

Nothing here, nor in any method, can reach a data set: the package does not import `tasks`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from backbones.base import Backbone
from methods.bits import Bits
from methods.scope import Scope

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called as progress(step, total_steps, losses). Losses are plain floats, so call it every few steps only."""

EpochMonitor = Callable[[int, "nn.Module"], None]
"""Called by a training engine after each epoch with the student in evaluation mode."""


def silent(step: int, total: int, losses: Mapping[str, float]) -> None:
    """A Progress that says nothing."""


class SynthesisFailed(Exception):
    """Synthesis gave no usable images: non-finite, constant or collapsed. One sentence says which."""


class TrainingFailed(Exception):
    """Calibration or training gave no usable student; one sentence says where it broke."""


class UnsupportedPair(Exception):
    """A method and a backbone, or a synthesizer and an engine, that do not go together."""


@dataclass(frozen=True)
class GradientShares:
    """How much of the images' gradient each loss term made: over the iterations of a set's first batch, or of
    the training of its generator."""

    iterations: tuple[int, ...] = ()
    """The iterations that were looked at, counted from 1; none where nobody looked."""
    shares: Mapping[str, list[float]] = field(default_factory=dict)
    """Loss term -> norm of its gradient over the norm of the whole gradient, at each of these."""

    def means(self) -> dict[str, float]:
        """Loss term -> its mean share."""
        return {name: sum(values) / len(values) for name, values in self.shares.items()}


@dataclass(frozen=True)
class SyntheticImages:
    """A set of images in the model's normalized space."""

    images: Tensor
    """(n, C, H, W) float32, on the CPU when stored and on the teacher's device while used."""
    labels: Tensor
    """What the images were made for: targets of the backbone's guidance (`backbones.guidance`), for a
    classifier (n,) int64 classes; -1 where there is nothing."""
    final_losses: Mapping[str, float] = field(default_factory=dict)
    """Each loss term at the last iteration, averaged over the batches."""
    gradient_shares: GradientShares = GradientShares()
    """What each loss term moves; empty where there is one term or none."""
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    """What the next set of the same student starts from beside these: a generator's weights, say."""


@dataclass(frozen=True)
class SynthesisTask:
    """What a synthesizer makes one set of images from."""

    teacher: Backbone
    """The full-precision model; it is left as it was."""
    generator: Generator
    """Random numbers, drawn on the CPU: the only source of randomness."""
    progress: Progress = silent
    """Told how far synthesis is."""
    student: nn.Module | None = None
    """The quantized model, for synthesizers that declare `needs_student`; None for all others."""
    epoch: int = 0
    """Training epoch that the set is made for; 0 for the first set."""
    previous: SyntheticImages | None = None
    """The set before, for every set but the first."""
    batches: range | None = None
    """The part of the set to make, where it can be divided (`Synthesizer.batches`); None for all of it."""
    real_images: tuple[Tensor, Tensor] | None = None
    """Images (n, C, H, W) in normalized space and their labels, where `needs_real_images` is declared."""


LaterSets = Literal["bound", "inside", "apart"]
"""Where sets after the first are made.

`bound`: by the instance that made the first, since it keeps something of it; the student is then made in one
stage. `inside`: by any instance, from `SynthesisTask.previous`, in the stage that trains the student: they
are little work. `apart`: by any instance as well, each in a stage of its own.
"""


class Synthesizer(ABC):
    """Makes images from the teacher alone, or, where it says so, from the teacher and the student."""

    Config: ClassVar[type]
    """Frozen dataclass of hyper-parameters; see `methods.settings` for how fields are declared."""
    needs_student: ClassVar[bool] = False
    """True when images depend on Q (MaskAQ, PSAQ-ViT V2): such sets are not reused for another trial."""
    later_sets: ClassVar[LaterSets] = "bound"
    """Where sets after the first are made; of interest where images depend on Q."""
    needs_real_images: ClassVar[bool] = False
    """True for the real-data reference alone: the harness puts `real_images` into its task."""
    keeps_pixel_range: ClassVar[bool] = True
    """False where images may hold values that no pixel has, as noise does."""
    families: ClassVar[frozenset[str]] = frozenset({"vit", "swin"})
    """Names of the backbone families it supports; `FAMILIES` for every one, a plug-in's too."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        """Make the whole set, on the teacher's device. Raises SynthesisFailed."""

    @property
    def batches(self) -> int:
        """Number of batches of a set, each of which can be made alone; 1 where a set cannot be divided.

        A synthesizer with more makes what `SynthesisTask.batches` says, as it would be in the whole set.
        """
        return 1

    def steps_at(self, epoch: int) -> int:
        """Optimisation steps of one batch of this epoch's set: how much work it is; 0 for next to none."""
        return 0

    def inputs_digest(self) -> str | None:
        """SHA-256 of what it reads beside the teacher, such as a user's files; None where that is nothing.

        It is asked for while a run is planned, and enters the key of the images. Raises ValueError, one
        sentence, when the input cannot be used.
        """
        return None

    def refreshes_at(self, epoch: int) -> bool:
        """Whether the set is made anew, with the current student, before this epoch (never at epoch 0)."""
        return False

    def needs_student_at(self, epoch: int) -> bool:
        """Whether the set of this epoch depends on Q; a first set that does not is shared like any other."""
        return self.needs_student


class ImageSource(ABC):
    """What an engine sees of a synthesizer."""

    @abstractmethod
    def first(self, student: nn.Module) -> SyntheticImages:
        """The set that calibration and the first epoch use, on the teacher's device."""

    @abstractmethod
    def refreshed(self, epoch: int, student: nn.Module) -> SyntheticImages | None:
        """A new set made with the current student before `epoch` (1, 2, ...), or None to keep the old one."""


@dataclass(frozen=True)
class FixedImages(ImageSource):
    """Images made once, before quantization."""

    images: SyntheticImages

    def first(self, student: nn.Module) -> SyntheticImages:
        """The stored images."""
        return self.images

    def refreshed(self, epoch: int, student: nn.Module) -> None:
        """Never anew."""
        return None


class CoupledImages(ImageSource):
    """Images that a synthesizer makes with the student, during quantization."""

    def __init__(
        self,
        synthesizer: Synthesizer,
        teacher: Backbone,
        generator: Generator,
        progress: Progress = silent,
        *,
        latest: SyntheticImages | None = None,
        made_for: int = 0,
    ) -> None:
        """`latest` is a set that is there, made for the epoch `made_for`; without it the first is made."""
        self._synthesizer = synthesizer
        self._teacher = teacher
        self._generator = generator
        self._progress = progress
        self.latest = latest
        """The last set."""
        self.made_for = made_for
        """The epoch that it was made for."""
        self.seconds = 0.0
        """Wall-clock spent in synthesis."""
        self.has_made_some = False
        """Whether the last set was made here."""

    def first(self, student: nn.Module) -> SyntheticImages:
        """The set that is there, or the first, made now."""
        return self.latest or self._make(0, student)

    def refreshed(self, epoch: int, student: nn.Module) -> SyntheticImages | None:
        """Make a new set where the synthesizer refreshes, unless the one that is there is this epoch's."""
        if epoch == self.made_for or not self._synthesizer.refreshes_at(epoch):
            return None
        return self._make(epoch, student)

    def _make(self, epoch: int, student: nn.Module) -> SyntheticImages:
        import time

        start = time.perf_counter()
        task = SynthesisTask(
            self._teacher, self._generator, self._progress, student, epoch, previous=self.latest
        )
        self.latest, self.made_for = self._synthesizer.synthesize(task), epoch
        self.seconds += time.perf_counter() - start
        self.has_made_some = True
        return self.latest


@dataclass(frozen=True)
class QuantizationTask:
    """What an engine makes one quantized model from."""

    teacher: Backbone
    """The full-precision model; it is left as it was."""
    source: ImageSource
    """Where the images come from."""
    bits: Bits
    """Bit-widths of weights and activations."""
    generator: Generator
    """Random numbers, drawn on the CPU: the only source of randomness."""
    progress: Progress = silent
    """Told how far quantization is."""
    on_epoch: EpochMonitor | None = None
    """Shown the student after each epoch; an engine that does not train shows it once, at epoch 0."""
    parts: int = 1
    """Parts that a training batch goes through the models in, for want of memory. Gradients add up over them,
    so that only the order of summation changes."""


Evidence = Literal["paper", "code", "note", "ours"]
"""Where a part was read: the paper, the authors' code, a third party's note, or our own choice."""


class Engine(ABC):
    """Turns the teacher and images into a quantized model, by calibration or by training."""

    Config: ClassVar[type]
    """Frozen dataclass of hyper-parameters; see `methods.settings` for how fields are declared."""
    title: ClassVar[str]
    """One line for lists."""
    citation: ClassVar[str]
    """Whose quantizer it is: title, venue, year and arXiv number."""
    sources: ClassVar[Mapping[str, Evidence]] = {}
    """Part -> where it comes from."""
    deviations: ClassVar[tuple[str, ...]] = ()
    """Where this implementation departs from the paper or code, and why."""
    not_established: ClassVar[tuple[str, ...]] = ()
    """What no source established, with the default taken."""
    families: ClassVar[frozenset[str]] = frozenset({"vit", "swin"})
    """Names of the backbone families it supports; `FAMILIES` for every one, a plug-in's too."""
    scopes: ClassVar[frozenset[Scope]] = frozenset({"whole"})
    """What it can quantize of a model."""
    published_settings: ClassVar[Mapping[str, Any]] = {}
    """Fields that published rows of this engine had, where our defaults are others."""

    def __init__(self, config: Any, scope: Scope = "whole") -> None:
        self.config = config
        self.scope = scope

    @abstractmethod
    def prepare(self, teacher: Backbone, bits: Bits) -> nn.Module:
        """A copy of the teacher's model with fresh quantizers in place; `load_state_dict` restores one.

        The teacher is left as it was.
        """

    @abstractmethod
    def quantize(self, task: QuantizationTask) -> nn.Module:
        """The quantized model in evaluation mode, ready to be scored and stored (`state_dict`).

        Raises TrainingFailed.
        """

    @abstractmethod
    def protocol(self, bits: Bits) -> dict[str, Any]:
        """What is quantized and how, for the fingerprint: plain JSON values with explaining keys."""


@dataclass(frozen=True)
class TrainingState:
    """A training between two epochs: all that going on needs beside the task."""

    epoch: int
    """How many epochs are over."""
    student: Mapping[str, Tensor]
    """The student's `state_dict`."""
    optimizer: Mapping[str, Tensor]
    """What the optimizer remembers, under names of the engine's choice."""
    generator: Tensor
    """State of the task's generator."""


class Training(ABC):
    """A student on its way: trained in pieces, each from where the one before ended."""

    @abstractmethod
    def run(self, until: int) -> None:
        """Train until so many epochs are over. Raises TrainingFailed."""

    @abstractmethod
    def state(self) -> TrainingState:
        """Where the training stands; at least one epoch is over."""

    @abstractmethod
    def finished(self) -> nn.Module:
        """The student after the last epoch, as `Engine.quantize` gives it. Raises TrainingFailed."""


class TrainingEngine(Engine):
    """An engine that trains epoch by epoch, so that another process can go on after any of them.

    However a training is cut, its student is the same to the last bit. An engine that cannot promise that is
    a plain `Engine`, whose work is one stage.
    """

    @property
    @abstractmethod
    def epochs(self) -> int:
        """Epochs of the whole training."""

    @abstractmethod
    def begin(self, task: QuantizationTask) -> Training:
        """The training of a fresh student, before its first epoch."""

    @abstractmethod
    def resume(self, task: QuantizationTask, state: TrainingState) -> Training:
        """The training that goes on from `state`; `task.source.first` gives the images that it stands at."""

    def quantize(self, task: QuantizationTask) -> nn.Module:
        """Train on the source's images; the last epoch is the result. Raises TrainingFailed."""
        training = self.begin(task)
        training.run(self.epochs)
        return training.finished()


@dataclass(frozen=True)
class Method:
    """A named preset: a synthesizer with the engine its paper used, and what is known about both."""

    name: str
    """What users type, such as `psaq_vit`."""
    synthesizer: type[Synthesizer] | None
    """None for the full-precision row."""
    engine: str | None
    """Name of the engine the paper used; None where the method is run with every engine of a suite."""
    title: str
    """One line for tables."""
    citation: str
    """Authors' title, venue, year and arXiv number."""
    published_name: str | None = None
    """The method's name in `results/published/` with its own engine; None where no row is comparable."""
    published_elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Other engine -> the method's name in `results/published/` where that engine was used."""
    published_settings: Mapping[str, Any] = field(default_factory=dict)
    """Synthesizer fields that the published rows had, where our defaults are others."""
    data_use: Literal["none", "class names", "own images", "real images"] = "none"
    """What the method sees beyond the teacher: `own images` are a user's, whatever they show."""
    sources: Mapping[str, Evidence] = field(default_factory=dict)
    """Part -> where it comes from."""
    deviations: tuple[str, ...] = ()
    """Where this implementation departs from the paper or code, and why."""
    not_established: tuple[str, ...] = ()
    """What no source established, with the default taken."""
    engine_settings: Callable[[Any], Mapping[str, Any]] | None = None
    """Synthesizer config -> engine fields that the paper's recipe sets (masked distillation, say)."""
