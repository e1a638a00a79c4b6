"""What every synthesizer is held to on untrained models, for the tests of single methods."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import nn

from backbones import SPECS, Backbone
from backbones.loading import build_model
from methods import SyntheticImages, configure, get_method
from methods.base import SynthesisTask


@functools.cache
def untrained(name: str) -> Backbone:
    """A digits model with random weights, the same in every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(SPECS[name])
    return Backbone(SPECS[name], model.eval().requires_grad_(False), "x")


def disturbed(teacher: Backbone, amount: float = 0.05) -> nn.Module:
    """Stands for a quantized model: the teacher's model with noise on its weights."""
    student = copy.deepcopy(teacher.model)
    source = seeded(9)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=source)
    return student.requires_grad_(True)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def synthesizer(name: str, **overrides: Any) -> Any:
    """The method's synthesizer under the smoke budget."""
    made_by = get_method(name).synthesizer
    assert made_by is not None
    return made_by(configure(made_by.Config, "smoke", overrides))


def two_sets(name: str, teacher: Backbone, seed: int) -> list[SyntheticImages]:
    """The first set and a refreshed one, by a fresh instance."""
    maker, student, generator = synthesizer(name), disturbed(teacher), seeded(seed)
    return [
        maker.synthesize(SynthesisTask(teacher, generator=generator, student=student, epoch=epoch))
        for epoch in (0, 5)
    ]


def assert_smoke(name: str, family: str) -> None:
    """The seed decides both sets, images are sound, and nothing else is touched."""
    teacher = untrained(family)
    before = torch.get_rng_state()
    first, again, other = (two_sets(name, teacher, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for made, same, different in zip(first, again, other, strict=True):
        assert made.images.shape == (4, *teacher.data.input_size)
        assert made.images.dtype == torch.float32
        assert not made.images.requires_grad
        assert made.images.isfinite().all()
        assert made.labels.shape == (4,)
        assert made.labels.dtype == torch.int64
        assert torch.equal(made.images, same.images)
        assert made.final_losses == same.final_losses
        assert not torch.equal(made.images, different.images)
    assert not torch.equal(first[0].images, first[1].images)
