"""A plug-in for tests: methods that fail, collapse, look for data, or do nothing, and a free engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from methods.base import Engine, Method, SynthesisFailed, Synthesizer, SyntheticImages
from methods.settings import setting


@dataclass(frozen=True)
class PlantedConfig:
    images: int = setting(2, "Number of images.", low=1, high=64, tunable=False)


class Blank(Synthesizer):
    Config = PlantedConfig

    def synthesize(self, teacher: Any, *, generator: Any, **_: Any) -> SyntheticImages:
        shape = (self.config.images, *teacher.data.input_size)
        return SyntheticImages(
            torch.rand(shape, generator=generator), torch.zeros(shape[0], dtype=torch.long)
        )


class Broken(Blank):
    def synthesize(self, *arguments: Any, **keywords: Any) -> SyntheticImages:
        raise RuntimeError("planted: the generator exploded")


class Collapsing(Blank):
    def synthesize(self, *arguments: Any, **keywords: Any) -> SyntheticImages:
        raise SynthesisFailed("planted: all images are constant")


class CollapsingOnce(Blank):
    calls = 0

    def synthesize(self, *arguments: Any, **keywords: Any) -> SyntheticImages:
        type(self).calls += 1
        if type(self).calls == 1:
            raise SynthesisFailed("planted: all images are constant")
        return super().synthesize(*arguments, **keywords)


class Peeking(Blank):
    def synthesize(self, teacher: Any, *, generator: Any, **_: Any) -> SyntheticImages:
        from sklearn.datasets import load_digits

        pixels = torch.tensor(load_digits().images)
        return SyntheticImages(pixels, torch.zeros(len(pixels), dtype=torch.long))


@dataclass(frozen=True)
class CopyConfig:
    pass


class Copy(Engine):
    """The teacher itself: no quantization at all."""

    Config = CopyConfig

    def prepare(self, teacher: Any, bits: Any) -> Any:
        import copy

        return copy.deepcopy(teacher.model)

    def quantize(self, teacher: Any, source: Any, bits: Any, *, generator: Any, **_: Any) -> Any:
        student = self.prepare(teacher, bits)
        source.first(student)
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
