"""Training of a conditional generator against the teacher, and the set of images drawn from it.

A method says what the generator is trained for; this module does the rest: classes, optimizer, schedule,
progress, and the check that usable images came out. It knows no loss term.

    class MySynthesizer(GeneratorSynthesizer):
        def losses(self, images, mixture, teacher, student):
            return {"one_hot": one_hot_loss(teacher.model(images), mixture.targets)}
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from backbones.base import Backbone
from methods.base import SynthesisFailed, SynthesisTask, Synthesizer, SyntheticImages
from methods.settings import setting
from methods.synthesis.gradient_shares import GradientWatch
from methods.synthesis.loop import REPORT_EVERY, as_numbers, refuse_unusable

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn
    from torch.optim import Optimizer

    from methods.synthesis.generator import ConditionalGenerator, Mixture

_COLLAPSED = 0.01
"""Images that differ from their mean by less than this (root mean square, normalized space) are all alike."""
_TOLERATED = 0.5
"""A generator now and then makes a constant image; a set of which more than half are has failed."""
_NETWORK, _ADAM = "network.", "adam."
"""What the names of a generator's memory begin with."""

DEVIATIONS = (
    "the set is drawn from the generator after its training and is then fixed; the code draws new images in "
    "every training step of the student, which the generator follows",
    "the term on the statistics of batch normalization has no counterpart in a ViT and is left out",
    "training takes the engine's epochs over 10,000 images, as MimiQ and MaskAQ do, so that only the data "
    "source differs; the code takes 400 epochs of 200 steps",
    "the distillation is the batch mean of the divergence at temperature 5, without class loss; the code's, "
    "at 20, also averages over classes, which makes it a thousandth, and adds a class loss",
)
"""What GDFQ and the methods that follow it do here unlike their code."""

NOT_ESTABLISHED = (
    "how the published ViT rows replaced the batch-normalization term: left out",
    "the quantizer and training behind the published ViT rows: lsq_qat without head distillation",
    "whether the published ViT rows drew their images beforehand: as above",
    "the checkpoint behind the published ViT-T full-precision row (72.01): ours is reported beside it",
)
"""What is unknown of all of them on ViTs."""


@dataclass(frozen=True)
class GeneratorConfig:
    """Defaults are the released GDFQ code's, but for the number of images."""

    images: int = setting(10_000, "Number of images.", low=1, high=100_000, fast=128, smoke=4, tunable=False)
    batch_size: int = setting(
        16, "Images generated together, in training and after it.", low=2, high=256, smoke=4, tunable=False
    )
    iterations: int = setting(
        80_000,
        "Training steps of the generator (400 epochs of 200).",
        low=1,
        high=200_000,
        fast=300,
        smoke=2,
        tunable=False,
    )
    learning_rate: float = setting(1e-3, "Adam's learning rate.", low=1e-5, high=1e-1, log=True, fast=5e-3)
    milestones: tuple[float, ...] = setting(
        (0.25, 0.5, 0.75),
        "Shares of the training after which the learning rate falls to a tenth.",
        fast=(0.8,),
        tunable=False,
    )
    latent_size: int = setting(100, "Numbers that describe an image.", low=1, high=1024, tunable=False)


class _Training(NamedTuple):
    network: ConditionalGenerator
    optimizer: Optimizer


class GeneratorSynthesizer(Synthesizer):
    """Trains a generator, then draws the set; a later set continues the training of the same generator."""

    config: GeneratorConfig
    keeps_pixel_range = False

    @abstractmethod
    def losses(
        self, images: Tensor, mixture: Mixture, teacher: Backbone, student: nn.Module | None
    ) -> Mapping[str, Tensor]:
        """Loss terms by name, weighted; their sum is minimized over the generator."""

    def network(self, teacher: Backbone, *, generator: Generator) -> ConditionalGenerator:
        """A fresh generator on the CPU. Here GDFQ's."""
        from methods.synthesis.generator import ConditionalGenerator

        return ConditionalGenerator(
            teacher.data.input_size,
            teacher.num_classes,
            latent_size=self.config.latent_size,
            generator=generator,
        )

    def mixture(self, teacher: Backbone, *, generator: Generator) -> Mixture:
        """The classes of one batch. Here one per image."""
        from methods.synthesis.generator import single_classes

        return single_classes(
            self.config.batch_size, teacher.num_classes, generator=generator, device=teacher.device
        )

    def iterations_at(self, epoch: int) -> int:
        """Training steps before the set of this epoch is drawn."""
        return self.config.iterations

    def learning_rate_at(self, iteration: int, epoch: int) -> float:
        """Learning rate of this training step. Here a tenth less after each milestone."""
        passed = sum(iteration >= share * self.iterations_at(epoch) for share in self.config.milestones)
        rate: float = self.config.learning_rate * 0.1**passed
        return rate

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        """Train the generator, then draw `config.images` images. Raises SynthesisFailed.

        Without a set before it starts with a fresh generator.
        """
        if task.previous is None:
            training = self._begin(task.teacher, task.generator)
        else:
            training = self._begun(task.teacher, task.previous.memory)
        watch = GradientWatch(self.iterations_at(task.epoch))
        final = self._train(training, task, watch)
        images, labels = self._draw(training.network, task.teacher, task.generator)
        refuse_unusable(images, tolerated=_TOLERATED)
        _refuse_collapsed(images)
        memory = _memory(training) if self.needs_student else {}
        return SyntheticImages(images, labels, final, watch.shares(), memory)

    def _begin(self, teacher: Backbone, generator: Generator) -> _Training:
        import torch

        network = self.network(teacher, generator=generator).to(teacher.device)
        rate = self.config.learning_rate
        return _Training(
            network, torch.optim.Adam(network.parameters(), lr=rate, betas=(0.5, 0.999), fused=True)
        )

    def _begun(self, teacher: Backbone, memory: Mapping[str, Tensor]) -> _Training:
        """The generator of the set before, with what its optimizer remembers."""
        import torch

        training = self._begin(teacher, torch.Generator())  # its numbers are replaced
        network, optimizer = training
        network.load_state_dict({name: memory[f"{_NETWORK}{name}"] for name in network.state_dict()})
        remembered: dict[int, dict[str, Tensor]] = {}
        for name in memory:
            if name.startswith(_ADAM):
                index, what = name.removeprefix(_ADAM).split(".")
                remembered.setdefault(int(index), {})[what] = memory[name].clone()
        optimizer.load_state_dict({**optimizer.state_dict(), "state": remembered})
        return training

    def _train(self, training: _Training, task: SynthesisTask, watch: GradientWatch) -> dict[str, float]:
        """The last loss terms as numbers; raises SynthesisFailed on one that is not finite."""
        import torch

        numbers: dict[str, float] = {}
        parameters = list(training.network.parameters())
        iterations = self.iterations_at(task.epoch)
        for iteration in range(iterations):
            for group in training.optimizer.param_groups:
                group["lr"] = self.learning_rate_at(iteration, task.epoch)
            mixture = self.mixture(task.teacher, generator=task.generator)
            images = training.network(mixture, generator=task.generator)
            terms = self.losses(images, mixture, task.teacher, task.student)
            watch.look(iteration, terms, images)
            training.optimizer.zero_grad()
            torch.autograd.backward(torch.stack(list(terms.values())).sum(), inputs=parameters)
            training.optimizer.step()
            if iteration + 1 == iterations or (iteration + 1) % REPORT_EVERY == 0:
                numbers = as_numbers(terms, iteration)
                task.progress(iteration + 1, iterations, numbers)
        return numbers

    def _draw(
        self, network: ConditionalGenerator, teacher: Backbone, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Images and labels; whole batches, since the batch's statistics enter every image."""
        import torch

        images, labels = [], []
        with torch.no_grad():
            for _ in range(math.ceil(self.config.images / self.config.batch_size)):
                mixture = self.mixture(teacher, generator=generator)
                images.append(network(mixture, generator=generator))
                labels.append(mixture.single_labels)
        return torch.cat(images)[: self.config.images], torch.cat(labels)[: self.config.images]


def _memory(training: _Training) -> dict[str, Tensor]:
    """What `_begun` needs."""
    network, optimizer = training
    memory = {f"{_NETWORK}{name}": value for name, value in network.state_dict().items()}
    for index, remembered in optimizer.state_dict()["state"].items():
        memory |= {f"{_ADAM}{index}.{what}": value for what, value in remembered.items()}
    return memory


def _refuse_collapsed(images: Tensor) -> None:
    spread = float((images - images.mean(dim=0)).square().mean().sqrt())
    if len(images) > 1 and spread < _COLLAPSED:
        raise SynthesisFailed(
            f"the generator collapsed: its {len(images)} images differ from their mean by {spread:.1e} only; "
            "a lower learning rate may help"
        )
