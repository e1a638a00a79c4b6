"""Every registered method is held to the contract of methods, on every family that it supports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from backbones.base import FAMILIES
from methods import engine_names, get_method, method_names
from methods.base import Method, SynthesisTask, Synthesizer, SyntheticImages
from methods.settings import setting
from methods.testing import ContractBroken, check_method, check_method_declarations, check_synthesis

SUPPORTED = [
    (name, family)
    for name in method_names()
    if (synthesizer := get_method(name).synthesizer) is not None
    for family in sorted(synthesizer.families)
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Any]]:
    """Method -> settings without which it makes nothing."""
    folder: Path = tmp_path_factory.mktemp("pictures")
    for index in range(4):
        Image.new("L", (20, 24), color=40 * index).save(folder / f"{index}.png")
    return {"image_folder": {"folder": str(folder)}}


@pytest.mark.parametrize("name", method_names())
def test_declarations(name: str) -> None:
    method = get_method(name)
    assert method.name == name
    assert method.engine is None or method.engine in engine_names()
    check_method_declarations(method)


@pytest.mark.parametrize(("name", "family"), SUPPORTED)
def test_synthesis(name: str, family: str, settings: Mapping[str, Mapping[str, Any]]) -> None:
    check_synthesis(get_method(name), family, overrides=settings.get(name))


@dataclass(frozen=True)
class DotsConfig:
    images: int = setting(2, "Number of images.", low=1, high=64)


class Dots(Synthesizer):
    """Follows the contract."""

    Config = DotsConfig
    families = frozenset({"vit"})

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        shape = (self.config.images, *task.teacher.data.input_size)
        images = torch.rand(shape, generator=task.generator) * 0.1
        return SyntheticImages(images, task.teacher.guidance.nothing(len(images)), {"one": 1.0})


class GlobalRandomness(Dots):
    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        made = super().synthesize(task)
        return replace(made, images=made.images + torch.rand(()) * 0.01)


class Unseeded(Dots):
    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        task.generator.seed()
        return super().synthesize(task)


class Constant(Dots):
    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        made = super().synthesize(task)
        return replace(made, images=torch.zeros_like(made.images))


class TooBright(Dots):
    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        made = super().synthesize(task)
        return replace(made, images=made.images + 100)


class NotFinite(Dots):
    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        made = super().synthesize(task)
        return replace(made, images=made.images / 0)


class TooFew(Dots):
    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        made = super().synthesize(task)
        return replace(made, images=made.images[1:])


class TensorLosses(Dots):
    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        task.progress(1, 1, {"one": torch.ones(())})  # type: ignore[dict-item]
        return super().synthesize(task)


class TeacherInTraining(Dots):
    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        made = super().synthesize(task)
        task.teacher.model.train()
        return made


class MovedStudent(Dots):
    needs_student = True

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        assert task.student is not None
        with torch.no_grad():
            next(task.student.parameters()).add_(1)
        return super().synthesize(task)


class KeepsItsImages(Dots):
    needs_student = True
    later_sets = "apart"
    kept: Tensor | None = None

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        made = super().synthesize(task)
        self.kept = made.images if self.kept is None else (self.kept + made.images) / 2
        return replace(made, images=self.kept)


class StudentInFirstSet(Dots):
    needs_student = True
    later_sets = "apart"

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        made = super().synthesize(task)
        return made if task.student is None else replace(made, images=made.images / 2)

    def needs_student_at(self, epoch: int) -> bool:
        return epoch > 0


class UnknownFamily(Dots):
    families = frozenset({"cnn"})


class Thawed(Dots):
    @dataclass
    class Config:
        images: int = setting(2, "Number of images.", low=1, high=64)


class BelowItsRange(Dots):
    @dataclass(frozen=True)
    class Config:
        images: int = setting(2, "Number of images.", low=1, high=64, fast=0)


def method_of(synthesizer: type[Synthesizer], **more: Any) -> Method:
    return Method("dots", synthesizer, engine=None, title="Dots", citation="planted", **more)


def test_a_method_that_follows_the_contract_passes() -> None:
    check_method(method_of(Dots))


@pytest.mark.parametrize(
    ("synthesizer", "fault"),
    [
        (GlobalRandomness, "dots on vit: draws from the global random numbers of torch"),
        (Unseeded, "the same seed gives other images"),
        (Constant, "another seed gives the same images"),
        (TooBright, "images leave the range of pixels"),
        (NotFinite, "images are not finite"),
        (TooFew, r"images are \(1, 1, 16, 16\), not \(2, 1, 16, 16\)"),
        (TensorLosses, "reports the loss one as Tensor, not float"),
        (TeacherInTraining, "leaves the teacher with other training modes"),
        (MovedStudent, "changes cls_token of the student"),
        (KeepsItsImages, "another instance makes another later set"),
        (StudentInFirstSet, "the first set depends on the student"),
        (UnknownFamily, "dots: unknown families cnn"),
        (Thawed, "Config is not a frozen dataclass"),
        (BelowItsRange, "under the budget fast images=0 is below 1"),
    ],
)
def test_a_broken_rule_is_named(synthesizer: type[Synthesizer], fault: str) -> None:
    with pytest.raises(ContractBroken, match=fault):
        check_method(method_of(synthesizer))


def test_texts_and_engine_settings_are_checked() -> None:
    with pytest.raises(ContractBroken, match="loss comes from 'rumour', an unknown source"):
        check_method(method_of(Dots, sources={"loss": "rumour"}))
    with pytest.raises(ContractBroken, match="deviations and not_established are tuples of sentences"):
        check_method(method_of(Dots, deviations="none"))
    wrong = replace(method_of(Dots, engine_settings=lambda config: {"epoch": 1}), engine="lsq_qat")
    with pytest.raises(ContractBroken, match="engine_settings: unknown field 'epoch'"):
        check_method(wrong)


def test_families_that_a_method_does_not_declare_are_left_alone() -> None:
    declared = {name: get_method(name).synthesizer for name in method_names()}
    assert {family for _, family in SUPPORTED} == FAMILIES
    assert all(made is None or made.families <= FAMILIES for made in declared.values())
