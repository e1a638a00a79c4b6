"""The training loop of engine E2: a student learns from the teacher on synthetic images.

Source: MaskAQ's released code (maskaq spec 4, mimiq spec 4). Knows nothing about what is quantized.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from backbones.base import Backbone
from backbones.families.explicit import AttentionTaps
from methods.base import EpochMonitor, ImageSource, Progress, TrainingFailed
from methods.engines.augmentation import training_view
from methods.engines.distillation import (
    entropy_of_difference,
    masked_head_distillation,
    structural_head_distillation,
)
from methods.quantization.lsq import close_ranges

if TYPE_CHECKING:
    from methods.engines.lsq_qat import LsqQatConfig

_REPORTS_PER_EPOCH = 4


def train(
    student: nn.Module,
    teacher: Backbone,
    source: ImageSource,
    config: LsqQatConfig,
    *,
    generator: Generator,
    progress: Progress,
    on_epoch: EpochMonitor | None,
) -> None:
    """Train `student` in place; it stays in evaluation mode, as in the released code.

    Raises TrainingFailed naming the epoch and step at which the loss was not finite.
    """
    images = source.first(student).images
    student.requires_grad_(True)
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
    )
    for epoch in range(config.epochs):
        if epoch > 0:
            optimizer.zero_grad()
            refreshed = source.refreshed(epoch, student)
            images = images if refreshed is None else refreshed.images
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(epoch, config)
        if epoch >= config.warmup_epochs:
            _Epoch(student, teacher, config, optimizer, epoch, generator, progress).run(images)
        elif epoch == 0:
            _take_ranges(student, images, teacher, config, generator)
        if epoch == 0:
            close_ranges(student)
        if on_epoch is not None:
            on_epoch(epoch, student)
    optimizer.zero_grad()
    student.requires_grad_(False)
    if not all(torch.stack([p.isfinite().all() for p in student.parameters()]).tolist()):
        raise TrainingFailed(
            "the last training step left parameters that are not finite: lower learning_rate"
        )


def learning_rate_at(epoch: int, config: LsqQatConfig) -> float:
    """eta_min + (lr - eta_min) (1 + cos(pi (epoch + 1) / epochs)) / 2: stepped at the start of an epoch."""
    lowest = config.eta_min_fraction * config.learning_rate
    phase = math.pi * (epoch + 1) / config.epochs
    return lowest + (config.learning_rate - lowest) * (1 + math.cos(phase)) / 2


class _Epoch:
    """One pass over the images, with a report a few times on the way."""

    def __init__(
        self,
        student: nn.Module,
        teacher: Backbone,
        config: LsqQatConfig,
        optimizer: torch.optim.Optimizer,
        epoch: int,
        generator: Generator,
        progress: Progress,
    ) -> None:
        self.student = student
        self.teacher = teacher
        self.config = config
        self.optimizer = optimizer
        self.epoch = epoch
        self.generator = generator
        self.progress = progress

    def run(self, images: Tensor) -> None:
        """Train on every image once, in random order."""
        order = torch.randperm(len(images), generator=self.generator).to(images.device)
        batches = order.split(self.config.batch_size)
        report_every = math.ceil(len(batches) / _REPORTS_PER_EPOCH)
        pending: list[dict[str, Tensor]] = []
        heads = self.config.head_distillation != "none"
        with (
            AttentionTaps(self.teacher.model, outputs=heads) as teacher_taps,
            AttentionTaps(self.student, outputs=heads) as student_taps,
        ):
            for step, indices in enumerate(batches):
                view = _view(images[indices], self.teacher, self.config, self.generator)
                losses = self._losses(view, teacher_taps, student_taps)
                self.optimizer.zero_grad()
                torch.stack(list(losses.values())).sum().backward()
                self.optimizer.step()
                pending.append({name: loss.detach() for name, loss in losses.items()})
                if len(pending) == report_every or step + 1 == len(batches):
                    self._report(pending, step, len(batches))
                    pending = []

    def _losses(
        self, view: Tensor, teacher_taps: AttentionTaps, student_taps: AttentionTaps
    ) -> dict[str, Tensor]:
        """The weighted terms; their sum is minimised."""
        with torch.no_grad():
            expected = self.teacher.model(view)
        answer = self.student(view)
        adadfq = self.config.distillation == "adadfq"
        distil = entropy_of_difference if adadfq else self.teacher.guidance.distillation
        losses = {"logits": distil(expected, answer, self.config.temperature)}
        if self.config.head_distillation != "none":
            heads = self._head_distillation(teacher_taps.outputs, student_taps.outputs)
            losses["heads"] = self.config.head_coefficient * heads
        return losses

    def _head_distillation(self, teacher: list[Tensor], student: list[Tensor]) -> Tensor:
        """On every token but CLS: the detection tokens of YOLOS carry its whole answer, so they take part."""
        skipped = min(1, self.teacher.prefix_tokens)
        if self.config.head_distillation == "structural":
            return structural_head_distillation(teacher, student, prefix_tokens=skipped)
        return masked_head_distillation(
            teacher,
            student,
            prefix_tokens=skipped,
            ratio=self.config.masked_ratio,
            weight=self.config.masked_weight,
        )

    def _report(self, pending: list[dict[str, Tensor]], step: int, steps: int) -> None:
        """Read the losses since the last report, all at once, and check them."""
        names = list(pending[0])
        table = torch.stack([torch.stack(list(losses.values())) for losses in pending]).cpu()
        for offset, row in enumerate(table):
            if not row.isfinite().all():
                where = step - len(pending) + 1 + offset
                raise TrainingFailed(
                    f"the loss is not finite at epoch {self.epoch}, step {where} of {steps}: "
                    f"{dict(zip(names, row.tolist(), strict=True))}; lower learning_rate"
                )
        means = dict(zip(names, table.mean(dim=0).tolist(), strict=True))
        self.progress(self.epoch * steps + step + 1, self.config.epochs * steps, means)


def _view(images: Tensor, teacher: Backbone, config: LsqQatConfig, generator: Generator) -> Tensor:
    if not config.augment:
        return images
    return training_view(images, teacher, crop_scale_min=config.crop_scale_min, generator=generator)


def _take_ranges(
    student: nn.Module, images: Tensor, teacher: Backbone, config: LsqQatConfig, generator: Generator
) -> None:
    """All that a first epoch without steps leaves behind: ranges from one augmented batch."""
    chosen = torch.randperm(len(images), generator=generator)[: config.batch_size].to(images.device)
    with torch.no_grad():
        student(_view(images[chosen], teacher, config, generator))
