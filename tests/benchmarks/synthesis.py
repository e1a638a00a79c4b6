"""One synthesis iteration of a method, and the plain pass it is measured against."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import torch

from backbones import SPECS, Backbone, load_backbone
from backbones.loading import build_model
from methods.bits import Bits
from methods.engines.lsq_qat import LsqQat, LsqQatConfig
from methods.maskaq import MaskaqConfig, MaskaqObjective
from methods.psaq_vit import PsaqVitConfig, PsaqVitObjective
from methods.quantization import frozen
from methods.synthesis.loop import Batch, Objective

Call = Callable[[], object]


@functools.cache
def _teacher() -> Backbone:
    weights = os.environ.get("HARNESS_WEIGHTS_DEIT_TINY")
    if weights:
        return load_backbone("deit_tiny", Path(weights))
    print("no HARNESS_WEIGHTS_DEIT_TINY: an untrained DeiT-T stands in")
    spec = SPECS["deit_tiny"]
    return Backbone(spec, build_model(spec).eval().requires_grad_(False), "untrained")


def plain_pass(batch: int) -> Call:
    """Forward and backward to the image, fused attention, class loss alone."""
    teacher = _teacher()
    images, labels, _ = _start(batch)

    def run() -> object:
        loss = torch.nn.functional.cross_entropy(teacher.model(images), labels)
        return torch.autograd.grad(loss, [images])

    return run


def psaq_iteration(batch: int) -> Call:
    """One PSAQ-ViT iteration: view, losses, gradient, step, clamp."""
    images, labels, generator = _start(batch)
    return _iteration(images, PsaqVitObjective(PsaqVitConfig(), Batch(_teacher(), labels, generator)))


def maskaq_iteration(batch: int) -> Call:
    """One MaskAQ iteration with a W4A4 student that is constant meanwhile."""
    teacher = _teacher()
    images, labels, generator = _start(batch)
    student = LsqQat(LsqQatConfig()).prepare(teacher, Bits(4, 4))
    with torch.no_grad():
        student(images)
    frozen(student).__enter__()
    return _iteration(images, MaskaqObjective(MaskaqConfig(), Batch(teacher, labels, generator, student, 30)))


def _iteration(images: torch.Tensor, objective: Objective) -> Call:
    optimizer = objective.optimizer(images)
    low, high = _teacher().pixel_range()

    def run() -> None:
        terms = objective.losses(images, objective.view(images, 500), 500)
        (images.grad,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), [images])
        optimizer.step()
        with torch.no_grad():
            images.clamp_(low, high)

    return run


def _start(batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, 224, 224, generator=generator).requires_grad_(True)
    return images, torch.randint(1000, (batch,), generator=generator), generator
