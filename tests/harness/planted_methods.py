"""A plug-in for tests: methods that fail, collapse, look for data, or do nothing, and a free engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from methods.base import (
    Engine,
    Method,
    QuantizationTask,
    SynthesisFailed,
    SynthesisTask,
    Synthesizer,
    SyntheticImages,
)
from methods.settings import setting


@dataclass(frozen=True)
class PlantedConfig:
    images: int = setting(2, "Number of images.", low=1, high=64, tunable=False)


class Blank(Synthesizer):
    Config = PlantedConfig

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        shape = (self.config.images, *task.teacher.data.input_size)
        images = torch.rand(shape, generator=task.generator)
        return SyntheticImages(images, torch.zeros(shape[0], dtype=torch.long))


class Broken(Blank):
    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        raise RuntimeError("planted: the generator exploded")


class Collapsing(Blank):
    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        raise SynthesisFailed("planted: all images are constant")


class CollapsingOnce(Blank):
    calls = 0

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        type(self).calls += 1
        if type(self).calls == 1:
            raise SynthesisFailed("planted: all images are constant")
        return super().synthesize(task)


class Peeking(Blank):
    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        from sklearn.datasets import load_digits

        pixels = torch.tensor(load_digits().images)
        return SyntheticImages(pixels, torch.zeros(len(pixels), dtype=torch.long))


@dataclass(frozen=True)
class CopyConfig:
    pass


class Copy(Engine):
    """The teacher itself: no quantization at all."""

    Config = CopyConfig
    title = "Planted copy"
    citation = "planted for tests"

    def prepare(self, teacher: Any, bits: Any) -> Any:
        import copy

        return copy.deepcopy(teacher.model)

    def quantize(self, task: QuantizationTask) -> Any:
        student = self.prepare(task.teacher, task.bits)
        task.source.first(student)
        return student

    def protocol(self, bits: Any) -> dict[str, Any]:
        return {"quantized": "nothing"}


def _method(name: str, synthesizer: type[Synthesizer]) -> Method:
    return Method(
        name=name, synthesizer=synthesizer, engine="planted_copy", title=name, citation="planted for tests"
    )


METHODS = (
    _method("planted_blank", Blank),
    _method("planted_broken", Broken),
    _method("planted_collapsing", Collapsing),
    _method("planted_collapsing_once", CollapsingOnce),
    _method("planted_peeking", Peeking),
)
ENGINES = {"planted_copy": Copy}
