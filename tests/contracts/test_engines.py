"""Every registered engine is held to the contract of engines, on every family that it supports."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from backbones import Backbone
from methods import engine_names, get_engine
from methods.base import Engine, QuantizationTask, TrainingState
from methods.bits import Bits
from methods.engines.lsq_qat import LsqQat
from methods.testing import ContractBroken, check_engine, check_engine_declarations, check_quantization

SUPPORTED = [(name, family) for name in engine_names() for family in sorted(get_engine(name).families)]


@pytest.mark.parametrize("name", engine_names())
def test_declarations(name: str) -> None:
    check_engine_declarations(name, get_engine(name))


@pytest.mark.parametrize("name", engine_names())
def test_every_built_in_engine_says_where_its_parts_come_from(name: str) -> None:
    engine = get_engine(name)
    assert engine.sources
    assert engine.deviations
    assert engine.not_established


@pytest.mark.parametrize(("name", "family"), SUPPORTED)
def test_quantization(name: str, family: str) -> None:
    check_quantization(name, get_engine(name), family)


@dataclass(frozen=True)
class Empty:
    """No settings."""


class Shrinking(Engine):
    """Follows the contract: halves every weight."""

    Config = Empty
    families = frozenset({"vit"})
    title = "Shrinking"
    citation = "planted"

    def prepare(self, teacher: Backbone, bits: Bits) -> nn.Module:
        return copy.deepcopy(teacher.model)

    def quantize(self, task: QuantizationTask) -> nn.Module:
        student = self.prepare(task.teacher, task.bits)
        task.source.first(student)
        self.change(student)
        if task.on_epoch is not None:
            task.on_epoch(0, student)
        return student

    def change(self, student: nn.Module) -> None:
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.mul_(0.5)

    def protocol(self, bits: Bits) -> dict[str, Any]:
        return {"bits": str(bits)}


class Copying(Shrinking):
    def change(self, student: nn.Module) -> None:
        pass


class InPlace(Shrinking):
    def prepare(self, teacher: Backbone, bits: Bits) -> nn.Module:
        teacher.model.head.bias.data = teacher.model.head.bias.data + 1
        return copy.deepcopy(teacher.model)


class Open(Shrinking):
    def change(self, student: nn.Module) -> None:
        super().change(student)
        student.requires_grad_(True)


class Training(Shrinking):
    def change(self, student: nn.Module) -> None:
        super().change(student)
        student.train()


class Unseeded(Shrinking):
    def change(self, student: nn.Module) -> None:
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(torch.randn(parameter.shape))


class Forgetful(Shrinking):
    """Keeps a hook that `prepare` does not make."""

    def change(self, student: nn.Module) -> None:
        student.register_forward_hook(lambda module, arguments, output: output + 1)


class Mute(Shrinking):
    def protocol(self, bits: Bits) -> dict[str, Any]:
        return {"bits": bits}


class Deaf(Shrinking):
    def protocol(self, bits: Bits) -> dict[str, Any]:
        return {"bits": "some"}


def test_an_engine_that_follows_the_contract_passes() -> None:
    check_engine("shrinking", Shrinking)


@pytest.mark.parametrize(
    ("engine", "fault"),
    [
        (Copying, "the student answers as the teacher does"),
        (Open, "leaves gradients on cls_token"),
        (Training, "shows on_epoch a student in training mode"),
        (Unseeded, "draws from the global random numbers of torch"),
        (Forgetful, "a stored student does not come back"),
        (Mute, "the protocol is not plain JSON"),
        (Deaf, "the protocol does not tell bits apart"),
    ],
)
def test_a_broken_rule_is_named(engine: type[Engine], fault: str) -> None:
    with pytest.raises(ContractBroken, match=fault):
        check_engine("planted", engine)


def test_a_teacher_that_is_changed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from methods.testing import engine_contract, models

    own = copy.deepcopy(models.tiny("digits_vit").model)
    teacher = Backbone(models.tiny("digits_vit").spec, own, "x")
    monkeypatch.setattr(engine_contract, "teacher_of", lambda family: teacher)
    with pytest.raises(ContractBroken, match=r"changes head\.bias of the teacher"):
        check_engine("planted", InPlace)


class LosesMomentum(LsqQat):
    def resume(self, task: QuantizationTask, state: TrainingState) -> Any:
        return super().resume(task, replace(state, optimizer={}))


class LosesRandomNumbers(LsqQat):
    def resume(self, task: QuantizationTask, state: TrainingState) -> Any:
        return super().resume(task, replace(state, generator=task.generator.get_state()))


class Miscounts(LsqQat):
    def resume(self, task: QuantizationTask, state: TrainingState) -> Any:
        return super().resume(task, replace(state, epoch=0))


@pytest.mark.parametrize(
    ("engine", "fault"),
    [
        (LosesMomentum, "a training that is cut gives another student"),
        (LosesRandomNumbers, "a training that is cut gives another student"),
        (Miscounts, "a training that is cut gives another student"),
    ],
)
def test_a_training_that_does_not_go_on_as_it_was_is_named(engine: type[Engine], fault: str) -> None:
    with pytest.raises(ContractBroken, match=fault):
        check_quantization("planted", engine, "vit")
