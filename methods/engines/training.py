"""The training loop of quantization-aware engines: a student learns from the teacher on synthetic images.

Source: MaskAQ's released code (maskaq spec 4, mimiq spec 4). Knows nothing about what is quantized.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from backbones.base import Backbone
from backbones.families.explicit import AttentionTaps
from methods.base import QuantizationTask, Training, TrainingFailed, TrainingState
from methods.engines.augmentation import training_view
from methods.engines.distillation import (
    entropy_of_difference,
    masked_head_distillation,
    structural_head_distillation,
)
from methods.engines.training_settings import TrainingSettings

_REPORTS_PER_EPOCH = 4
_MOMENTUM = "momentum_buffer"
"""What SGD calls it."""


class DistilledTraining(Training):
    """Trains a student in place; it stays in evaluation mode, as in the released code."""

    def __init__(
        self,
        student: nn.Module,
        task: QuantizationTask,
        settings: TrainingSettings,
        *,
        before_first_epoch: Callable[[nn.Module, Tensor], None],
        after_first_epoch: Callable[[nn.Module], None],
        state: TrainingState | None = None,
    ) -> None:
        """Train a fresh student, or go on with the one of `state`.

        `before_first_epoch` is called with a fresh student and the first set of images. `after_first_epoch`
        is called once the student has seen its first views, with or without steps on them: where an engine
        closes the ranges that quantizers take from what they see. Raises ValueError where the settings cannot
        train this teacher's student.
        """
        _require_trainable(settings, task.teacher)
        self._student, self._task, self._settings = student, task, settings
        self._after_first_epoch = after_first_epoch
        self._images = task.source.first(student).images
        if state is None:
            before_first_epoch(student, self._images)
        else:
            student.load_state_dict(state.student)
        student.requires_grad_(True)
        self._optimizer = torch.optim.SGD(
            student.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
            weight_decay=settings.weight_decay,
        )
        self._epoch = 0
        if state is not None:
            self._epoch = state.epoch
            self._restore_momentum(state.optimizer)
            task.generator.set_state(state.generator)

    def run(self, until: int) -> None:
        """Train until so many epochs are over.

        Raises TrainingFailed naming the epoch and step at which the loss was not finite.
        """
        for epoch in range(self._epoch, until):
            self._run_epoch(epoch)
            self._epoch = epoch + 1

    def _run_epoch(self, epoch: int) -> None:
        student, task, settings = self._student, self._task, self._settings
        if epoch > 0:
            self._optimizer.zero_grad()
            refreshed = task.source.refreshed(epoch, student)
            self._images = self._images if refreshed is None else refreshed.images
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate_at(epoch, settings)
        if epoch >= settings.warmup_epochs:
            _Epoch(student, task, settings, self._optimizer, epoch).run(self._images)
        elif epoch == 0:
            _show_one_batch(student, self._images, task, settings)
        if epoch == 0:
            self._after_first_epoch(student)
        if task.on_epoch is not None:
            task.on_epoch(epoch, student)

    def state(self) -> TrainingState:
        """Student, momentum and random numbers after the last epoch that was run."""
        momentum = {
            name: self._optimizer.state[parameter][_MOMENTUM]
            for name, parameter in self._student.named_parameters()
            if self._optimizer.state[parameter].get(_MOMENTUM) is not None
        }
        return TrainingState(
            self._epoch, self._student.state_dict(), momentum, self._task.generator.get_state()
        )

    def _restore_momentum(self, momentum: Mapping[str, Tensor]) -> None:
        """Only parameters that had a gradient have some."""
        for name, parameter in self._student.named_parameters():
            if name in momentum:
                self._optimizer.state[parameter][_MOMENTUM] = momentum[name].to(parameter.device, copy=True)

    def finished(self) -> nn.Module:
        """The student; raises TrainingFailed where the last step left it with parameters not finite."""
        self._optimizer.zero_grad()
        self._student.requires_grad_(False)
        if not all(torch.stack([p.isfinite().all() for p in self._student.parameters()]).tolist()):
            raise TrainingFailed(
                "the last training step left parameters that are not finite: lower learning_rate"
            )
        return self._student


def learning_rate_at(epoch: int, settings: TrainingSettings) -> float:
    """eta_min + (lr - eta_min) (1 + cos(pi (epoch + 1) / epochs)) / 2: stepped at the start of an epoch."""
    lowest = settings.eta_min_fraction * settings.learning_rate
    phase = math.pi * (epoch + 1) / settings.epochs
    return lowest + (settings.learning_rate - lowest) * (1 + math.cos(phase)) / 2


def head_distillation(
    teacher: list[Tensor], student: list[Tensor], settings: TrainingSettings, *, prefix_tokens: int
) -> Tensor:
    """Distance of attention outputs, a list of layers each (B, H, N, d), on every token but CLS.

    The detection tokens of YOLOS carry its whole answer, so of the `prefix_tokens` only CLS is left out.
    """
    skipped = min(1, prefix_tokens)
    if settings.head_distillation == "structural":
        return structural_head_distillation(teacher, student, prefix_tokens=skipped)
    return masked_head_distillation(
        teacher,
        student,
        prefix_tokens=skipped,
        ratio=settings.masked_ratio,
        weight=settings.masked_weight,
    )


class _Epoch:
    """One pass over the images, with a report a few times on the way."""

    def __init__(
        self,
        student: nn.Module,
        task: QuantizationTask,
        settings: TrainingSettings,
        optimizer: torch.optim.Optimizer,
        epoch: int,
    ) -> None:
        self.student = student
        self.task = task
        self.teacher = task.teacher
        self.settings = settings
        self.optimizer = optimizer
        self.epoch = epoch

    def run(self, images: Tensor) -> None:
        """Train on every image once, in random order and batches whose sizes differ by one at most.

        A step counts alike whatever its batch holds, so none may be left with the few images of a remainder.
        """
        order = torch.randperm(len(images), generator=self.task.generator).to(images.device)
        batches = torch.tensor_split(order, math.ceil(len(order) / self.settings.batch_size))
        report_every = math.ceil(len(batches) / _REPORTS_PER_EPOCH)
        pending: list[dict[str, Tensor]] = []
        heads = self.settings.head_distillation != "none"
        with (
            AttentionTaps(self.teacher.model, outputs=heads) as teacher_taps,
            AttentionTaps(self.student, outputs=heads) as student_taps,
        ):
            for step, indices in enumerate(batches):
                view = _view(images[indices], self.task, self.settings)
                if self.epoch == step == 0 and self.task.parts > 1:
                    with torch.no_grad():
                        self.student(view)  # quantizers that begin with what they see begin with all of it
                self.optimizer.zero_grad()
                pending.append(self._backward(view, teacher_taps, student_taps))
                self.optimizer.step()
                if len(pending) == report_every or step + 1 == len(batches):
                    self._report(pending, step, len(batches))
                    pending = []

    def _backward(
        self, view: Tensor, teacher_taps: AttentionTaps, student_taps: AttentionTaps
    ) -> dict[str, Tensor]:
        """Add the gradient of the weighted terms, which are means over images; the terms themselves."""
        parts = view.tensor_split(min(self.task.parts, len(view)))
        found: list[dict[str, Tensor]] = []
        for part in parts:
            losses = self._losses(part, teacher_taps, student_taps)
            if len(parts) > 1:
                losses = {name: loss * (len(part) / len(view)) for name, loss in losses.items()}
            torch.autograd.backward(torch.stack(list(losses.values())).sum())
            found.append({name: loss.detach() for name, loss in losses.items()})
        return {name: torch.stack([losses[name] for losses in found]).sum(dim=0) for name in found[0]}

    def _losses(
        self, view: Tensor, teacher_taps: AttentionTaps, student_taps: AttentionTaps
    ) -> dict[str, Tensor]:
        """The weighted terms; their sum is minimised."""
        settings = self.settings
        with torch.no_grad():
            expected = self.teacher.model(view)
        answer = self.student(view)
        adadfq = settings.distillation == "adadfq"
        distil = entropy_of_difference if adadfq else self.teacher.guidance.distillation
        losses = {"logits": distil(expected, answer, settings.temperature)}
        if settings.head_distillation != "none":
            heads = head_distillation(
                teacher_taps.outputs,
                student_taps.outputs,
                settings,
                prefix_tokens=self.teacher.prefix_tokens,
            )
            losses["heads"] = settings.head_coefficient * heads
        return losses

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
        self.task.progress(self.epoch * steps + step + 1, self.settings.epochs * steps, means)


def _require_trainable(settings: TrainingSettings, teacher: Backbone) -> None:
    if settings.warmup_epochs >= settings.epochs:
        raise ValueError(
            f"warmup_epochs={settings.warmup_epochs} leaves none of the {settings.epochs} epochs "
            "to train in: raise epochs or lower warmup_epochs"
        )
    if settings.distillation == "adadfq" and teacher.spec.is_detector:
        raise ValueError(
            f"distillation=adadfq compares class logits and {teacher.spec.name} is a detector: choose kl"
        )


def _view(images: Tensor, task: QuantizationTask, settings: TrainingSettings) -> Tensor:
    if not settings.augment:
        return images
    return training_view(
        images, task.teacher, crop_scale_min=settings.crop_scale_min, generator=task.generator
    )


def _show_one_batch(
    student: nn.Module, images: Tensor, task: QuantizationTask, settings: TrainingSettings
) -> None:
    """All that a first epoch without steps leaves behind: what quantizers see of one augmented batch."""
    order = torch.randperm(len(images), generator=task.generator)
    chosen = order[: settings.batch_size].to(images.device)
    with torch.no_grad():
        student(_view(images[chosen], task, settings))
