"""A plug-in for tests of the search: an engine whose students are as bad as a setting says."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import torch

from methods.base import Engine, Method, QuantizationTask, SynthesisTask, Synthesizer, SyntheticImages
from methods.settings import setting


@dataclass(frozen=True)
class DotsConfig:
    images: int = setting(2, "Number of images.", low=1, high=64, tunable=False)
    contrast: float = setting(1.0, "Does nothing.", low=0.1, high=2.0)


class Dots(Synthesizer):
    Config = DotsConfig

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        shape = (self.config.images, *task.teacher.data.input_size)
        return SyntheticImages(torch.rand(shape, generator=task.generator), torch.zeros(shape[0]).long())


@dataclass(frozen=True)
class DamageConfig:
    damage: float = setting(0.3, "Noise on the head's weights.", low=0.0, high=4.0)
    kind: str = setting("noise", "What is added.", choices=("noise", "nothing"))
    epochs: int = setting(4, "How often it is looked at.", low=1, high=100, fast=4, smoke=4)


class Damage(Engine):
    """The teacher with a damaged head; slow where PLANTED_SECONDS says so, and leaves a mark per epoch."""

    Config = DamageConfig
    title = "Planted damage"
    citation = "planted for tests"

    def prepare(self, teacher: Any, bits: Any) -> Any:
        import copy

        return copy.deepcopy(teacher.model)

    def quantize(self, task: QuantizationTask) -> Any:
        student = self.prepare(task.teacher, task.bits)
        task.source.first(student)
        weight = student.head.weight
        noise = torch.randn(weight.shape, generator=task.generator) * weight.std()
        scale = self.config.damage if self.config.kind == "noise" else 0.0
        weight.data += scale * noise
        for epoch in range(self.config.epochs):
            time.sleep(float(os.environ.get("PLANTED_SECONDS", "0")))
            if task.on_epoch is not None:
                task.on_epoch(epoch, student)
        return student

    def protocol(self, bits: Any) -> dict[str, Any]:
        return {"quantized": "nothing"}


class Frozen(Damage):
    @dataclass(frozen=True)
    class Config:
        epochs: int = setting(1, "Not searched.", low=1, high=2, tunable=False)


class Plain(Dots):
    @dataclass(frozen=True)
    class Config:
        images: int = setting(2, "Number of images.", low=1, high=64, tunable=False)


def _method(name: str, synthesizer: type[Synthesizer], engine: str) -> Method:
    return Method(name=name, synthesizer=synthesizer, engine=engine, title=name, citation="planted for tests")


METHODS = (
    _method("planted_dots", Dots, "planted_damage"),
    _method("planted_other", Dots, "planted_damage"),
    _method("planted_plain", Plain, "planted_frozen"),
)
ENGINES = {"planted_damage": Damage, "planted_frozen": Frozen}
