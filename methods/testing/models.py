"""Tiny teachers, students, images, synthesizers and random numbers for tests of methods and engines."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import Generator, Tensor, nn

from backbones import SPECS, Backbone, find_weights, load_backbone
from backbones.families.registry import get_family
from backbones.loading import build_model
from methods.base import FixedImages, Synthesizer, SyntheticImages
from methods.registry import get_method
from methods.settings import configure
from methods.testing.detectors import detector, pictures

DIGITS_MODELS = ("digits_vit", "digits_swin")
"""Classifiers of handwritten digits, one of each family, whose trained weights are part of the project."""


@functools.cache
def tiny(name: str) -> Backbone:
    """A trained digits model; it is shared by all tests, which must leave it as it is."""
    return load_backbone(name, find_weights(SPECS[name]))


@functools.cache
def untrained(name: str) -> Backbone:
    """A digits model with random weights, the same in every run; shared like `tiny`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(SPECS[name])
    return Backbone(SPECS[name], model.eval().requires_grad_(False), "x")


def teacher_of(family: str) -> Backbone:
    """A tiny teacher of any family: a trained classifier of digits, or a detector with random weights."""
    return detector(family) if get_family(family).detects else tiny(f"digits_{family}")


def images_for(teacher: Backbone, count: int, seed: int = 0) -> Tensor:
    """(count, C, H, W) smooth random pictures of the teacher's size, in normalized space."""
    return pictures(teacher, count, seed) if teacher.spec.is_detector else blobs(count, seed)


def synthesizer(name: str, **overrides: Any) -> Synthesizer:
    """The synthesizer of a registered method under the smoke budget."""
    made_by = get_method(name).synthesizer
    assert made_by is not None
    return made_by(configure(made_by.Config, "smoke", overrides))


def blobs(count: int, seed: int = 0) -> Tensor:
    """(count, 1, 16, 16) smooth random pictures in the digits models' normalized space."""
    noise = torch.randn(count, 1, 4, 4, generator=seeded(seed))
    return torch.nn.functional.interpolate(noise, size=16, mode="bicubic")


def source_of(images: Tensor) -> FixedImages:
    """Images without meaningful labels, as an engine for classifiers sees them."""
    return FixedImages(SyntheticImages(images, torch.full((len(images),), -1)))


def disturbed(teacher: Backbone, amount: float = 0.05) -> nn.Module:
    """Stands for a quantized model: the teacher's model with noise on its weights."""
    student = copy.deepcopy(teacher.model)
    source = seeded(9)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=source)
    return student.requires_grad_(True)


def seeded(seed: int = 0) -> Generator:
    """Random numbers on the CPU from a seed."""
    return torch.Generator().manual_seed(seed)
