"""The optimisation of images that every synthesizer of this project shares: noise in, images out.

A method says what its images are optimised for (`Objective`); this module does the rest: batches, noise,
targets, schedule, clamp, progress, and the check that images came out. It knows no loss term.

    class MyObjective(Objective):
        def losses(self, images, view, iteration):
            guidance = self.batch.teacher.guidance
            return {"one_hot": guidance.loss(self.batch.teacher.model(view), self.targets)}

    class MySynthesizer(ImageOptimizer):
        Config = MyConfig            # with images, batch_size, iterations and learning_rate
        Objective = MyObjective
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from backbones.base import Backbone
from methods.base import Progress, SynthesisFailed, SynthesisTask, Synthesizer, SyntheticImages
from methods.synthesis.gradient_shares import GradientWatch

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn
    from torch.optim import Optimizer

    from methods.synthesis.augmentations import Placement

REPORT_EVERY = 10
"""Iterations between two looks at the losses: reading them waits for the device."""
_CONSTANT = 1e-4
"""An image whose channels all vary less than this (standard deviation, normalized space) is constant."""


@dataclass(frozen=True)
class Batch:
    """What an objective may use for one batch of images."""

    teacher: Backbone
    labels: Tensor
    """Targets of the teacher's guidance, on its device; for a classifier (B,) int64 classes."""
    generator: Generator
    """On the CPU; this batch's only source of randomness."""
    student: nn.Module | None = None
    """The quantized model, for synthesizers that need it."""
    epoch: int = 0
    """Training epoch the set is made for; 0 for the first set."""


class Objective(ABC):
    """What one batch of images is optimised for; made anew for every batch, so it may draw constants."""

    def __init__(self, config: Any, batch: Batch) -> None:
        self.config = config
        self.batch = batch
        self.targets = batch.labels
        """Targets of the latest view: boxes move along with it."""

    @abstractmethod
    def losses(self, images: Tensor, view: Tensor, iteration: int) -> Mapping[str, Tensor]:
        """Loss terms by name, weighted; their sum is minimized. `images` are optimised, `view` shows them."""

    def view(self, images: Tensor, iteration: int) -> Tensor:
        """What the models see of the images: an augmented copy. Here the images themselves."""
        return images

    def placed(self, images: Tensor, placement: Placement) -> Tensor:
        """A shifted, perhaps mirrored view of the images, for `view` to begin with; `targets` follow."""
        height, width = images.shape[-2:]
        self.targets = self.batch.teacher.guidance.moved(
            self.batch.labels,
            down=placement.down / height,
            right=placement.right / width,
            mirrored=placement.mirrored,
        )
        return placement.of(images)

    def finished(self, images: Tensor) -> Tensor:
        """What is kept of the optimised images. Here all of them, as they are."""
        return images

    def optimizer(self, images: Tensor) -> Optimizer:
        """Made once per batch. Here Adam."""
        import torch

        return torch.optim.Adam([images], lr=self.config.learning_rate, fused=True)

    def learning_rate(self, iteration: int) -> float:
        """Learning rate of this iteration. Here a cosine from `config.learning_rate` to 0."""
        return cosine(self.config.learning_rate, 0.0, iteration / self.config.iterations)


class ImageOptimizer(Synthesizer):
    """A synthesizer that optimises noise, batch by batch; Config has `images`, `batch_size`, `iterations`.

    Every batch has its own generator, seeded from the set's: a larger set begins with the same whole batches.
    """

    Objective: ClassVar[type]
    """The `Objective` that every batch gets its own of."""

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        """Optimise `config.images` images, `config.batch_size` at a time, or the batches of the task.

        Raises SynthesisFailed.
        """
        import torch

        teacher = task.teacher
        sizes = _batch_sizes(self.config.images, self.config.batch_size)
        seeds = [_draw_seed(task.generator) for _ in sizes]
        batches = range(len(sizes)) if task.batches is None else task.batches
        total = len(batches) * self.config.iterations
        made, labels, final = [], [], []
        watch = GradientWatch(self.config.iterations)
        for done, batch in enumerate(batches):
            own = torch.Generator().manual_seed(seeds[batch])
            drawn = teacher.guidance.draw(sizes[batch], generator=own).to(teacher.device)
            objective = self.Objective(self.config, Batch(teacher, drawn, own, task.student, task.epoch))
            start = self.start(batch, sizes[batch], teacher, generator=own)
            counted = _counted(task.progress, done * self.config.iterations, total)
            images, losses = optimize(
                start,
                objective,
                self.config.iterations,
                report=counted,
                watch=watch if batch == 0 else None,  # the batches of a set are alike, and a look costs time
            )
            made.append(images)
            labels.append(drawn)
            final.append(losses)
        means = {name: sum(losses[name] for losses in final) / len(final) for name in final[0]}
        return SyntheticImages(torch.cat(made), torch.cat(labels), means, watch.shares())

    @property
    def batches(self) -> int:
        """Number of batches, each from random numbers of its own."""
        return len(_batch_sizes(self.config.images, self.config.batch_size))

    def steps_at(self, epoch: int) -> int:
        """Optimisation steps of one batch."""
        steps: int = self.config.iterations
        return steps

    def start(self, batch: int, size: int, teacher: Backbone, *, generator: Generator) -> Tensor:
        """What batch number `batch` (B, C, H, W) is optimised from. Here N(0, 1)."""
        import torch

        return torch.randn(size, *teacher.data.input_size, generator=generator).to(teacher.device)


def optimize(
    start: Tensor,
    objective: Objective,
    iterations: int,
    *,
    report: Callable[[int, Mapping[str, float]], None] = lambda iteration, losses: None,
    watch: GradientWatch | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Optimise one batch (B, C, H, W) from `start`; the images and the last loss terms as numbers.

    After each step the images are clamped to the teacher's pixel range. `watch` sees every iteration and
    changes none. Raises SynthesisFailed on a loss that is not finite (looked at every ten iterations), and on
    images that are not finite or constant.
    """
    import torch

    low, high = objective.batch.teacher.pixel_range()
    images = start.clone().requires_grad_(True)
    optimizer = objective.optimizer(images)
    numbers: dict[str, float] = {}
    for iteration in range(iterations):
        for group in optimizer.param_groups:
            group["lr"] = objective.learning_rate(iteration)
        terms = objective.losses(images, objective.view(images, iteration), iteration)
        total = torch.stack(list(terms.values())).sum()
        if watch is not None:
            watch.look(iteration, terms, images)
        images.grad = None
        # Naming the inputs lays the gradient out as the images are, which fused optimizers need.
        torch.autograd.backward(total, inputs=[images])
        optimizer.step()
        with torch.no_grad():
            images.clamp_(low, high)
        last = iteration + 1 == iterations
        if last or (iteration + 1) % REPORT_EVERY == 0:
            numbers = as_numbers(terms, iteration)
            report(iteration + 1, numbers)
    images = objective.finished(images.detach())
    refuse_unusable(images)
    return images, numbers


def cosine(start: float, end: float, share: float) -> float:
    """From `start` at share 0 to `end` at share 1 along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _counted(progress: Progress, before: int, total: int) -> Callable[[int, Mapping[str, float]], None]:
    """Progress of one batch as progress of the set."""
    return lambda iteration, losses: progress(before + iteration, total, losses)


def as_numbers(terms: Mapping[str, Tensor], iteration: int) -> dict[str, float]:
    """Loss terms read from the device; raises SynthesisFailed naming those that are not finite."""
    import torch

    values = torch.stack([term.detach() for term in terms.values()]).tolist()
    numbers = dict(zip(terms, values, strict=True))
    faults = [name for name, value in numbers.items() if not math.isfinite(value)]
    if faults:
        raise SynthesisFailed(
            f"the loss term {' and '.join(faults)} is not finite at iteration {iteration + 1}: "
            "a lower learning rate may help"
        )
    return numbers


def refuse_unusable(images: Tensor, *, tolerated: float = 0.0) -> None:
    """Raise SynthesisFailed on images (B, C, H, W) that are not finite, or constant.

    `tolerated` is the share of them that may be constant.
    """
    if not bool(images.isfinite().all()):
        raise SynthesisFailed("images are not finite after optimisation: a lower learning rate may help")
    varies = images.std(dim=(-2, -1)).amax(dim=1) > _CONSTANT
    constant = int((~varies).sum())
    if constant > tolerated * len(images):
        raise SynthesisFailed(
            f"{constant} of {len(images)} images of a batch are constant after optimisation"
        )


def _batch_sizes(images: int, batch_size: int) -> list[int]:
    return [min(batch_size, images - start) for start in range(0, images, batch_size)]


def _draw_seed(generator: Generator) -> int:
    import torch

    return int(torch.randint(2**62, (), generator=generator))
