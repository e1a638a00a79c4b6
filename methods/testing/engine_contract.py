"""What every engine is held to: what it declares, and the student that it makes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Backbone
from methods.base import Engine, FixedImages, QuantizationTask, SyntheticImages, TrainingEngine
from methods.bits import Bits
from methods.scope import SCOPES, Scope
from methods.settings import configure
from methods.testing.models import images_for, seeded, teacher_of
from methods.testing.rules import (
    ProgressCheck,
    check_config,
    check_evidence,
    check_families,
    equal,
    flat_tensors,
    model_kept,
    random_state_kept,
    require,
)

_BITS = Bits(4, 4)
_IMAGES = 4
_LINKS = 3
"""Epochs of a training that is cut after each of them."""


def check_engine(name: str, engine: type[Engine]) -> None:
    """Run every contract test over an engine, on tiny models of every family that it supports.

    Raises ContractBroken.
    """
    check_engine_declarations(name, engine)
    for family in sorted(engine.families):
        check_quantization(name, engine, family)


def check_engine_declarations(name: str, engine: type[Engine]) -> None:
    """The engine's texts, settings, scopes and protocol. Raises ContractBroken."""
    require(name.isidentifier() and name.islower(), f"{name}: the name is no lower-case identifier")
    require(issubclass(engine, Engine), f"{name}: the class is no Engine")
    check_evidence(name, engine)
    check_config(name, engine.Config)
    check_families(name, engine)
    require(engine.scopes, f"{name}: no scope is supported")
    require(engine.scopes <= set(SCOPES), f"{name}: unknown scopes")
    protocols = [_json(_protocol(name, engine, scope)) for scope in sorted(engine.scopes)]
    require(len(set(protocols)) == len(protocols), f"{name}: the protocol does not tell scopes apart")
    other = _made(engine).protocol(Bits(8, 8))
    require(_json(other) != _json(_protocol(name, engine)), f"{name}: the protocol does not tell bits apart")


def check_quantization(name: str, engine: type[Engine], family: str) -> None:
    """The student that an engine makes under the smoke budget from a tiny teacher of one family.

    It differs from the teacher, is decided by the seed alone, is in evaluation mode without gradients, and
    comes back from its state bit for bit; the teacher and global random numbers stay as they were. Raises
    ContractBroken.
    """
    name, teacher = f"{name} on {family}", teacher_of(family)
    made = _made(engine)
    student, again = (_student(name, made, teacher) for _ in range(2))
    restored = made.prepare(teacher, _BITS)
    restored.load_state_dict(student.state_dict())
    answers = _answers(student, teacher)
    require(answers, f"{name}: the student answers nothing")
    require(
        not equal(answers, _answers(teacher.model, teacher)),
        f"{name}: the student answers as the teacher does",
    )
    finite = all(answer.isfinite().all() for answer in answers)
    require(finite, f"{name}: the student's answers are not finite")
    require(equal(answers, _answers(again, teacher)), f"{name}: the same seed gives another student")
    require(equal(answers, _answers(restored, teacher)), f"{name}: a stored student does not come back")
    if issubclass(engine, TrainingEngine):
        _check_links(name, engine, teacher)


def _check_links(name: str, engine: type[TrainingEngine], teacher: Backbone) -> None:
    """A training that another instance goes on with after every epoch gives the same student, bit for bit."""
    settings = {"epochs": _LINKS} if "epochs" in {f.name for f in dataclasses.fields(engine.Config)} else {}
    config = configure(engine.Config, "smoke", settings)
    whole = engine(config).quantize(_task(teacher))
    training = engine(config).begin(_task(teacher))
    for epoch in range(1, engine(config).epochs):
        training.run(epoch)
        state = training.state()
        require(state.epoch == epoch, f"{name}: a state after epoch {epoch} says {state.epoch}")
        training = engine(config).resume(_task(teacher), state)
    training.run(engine(config).epochs)
    linked = training.finished()
    same = equal(list(whole.state_dict().values()), list(linked.state_dict().values()))
    require(same, f"{name}: a training that is cut gives another student")


def _made(engine: type[Engine], scope: Scope = "whole") -> Engine:
    return engine(configure(engine.Config, "smoke", {}), scope)


def _protocol(name: str, engine: type[Engine], scope: Scope = "whole") -> dict[str, Any]:
    protocol = _made(engine, scope).protocol(_BITS)
    require(protocol == json.loads(_json(protocol)), f"{name}: the protocol is not plain JSON")
    return protocol


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _student(name: str, engine: Engine, teacher: Backbone) -> nn.Module:
    """One student, made under watch."""
    monitor = _EpochCheck(name)
    task = dataclasses.replace(_task(teacher), progress=ProgressCheck(name), on_epoch=monitor)
    with contextlib.ExitStack() as kept:
        kept.enter_context(random_state_kept(name))
        kept.enter_context(model_kept(name, "teacher", teacher.model))
        student = engine.quantize(task)
    require(monitor.epochs, f"{name}: never shows the student to on_epoch")
    require(not _is_training(student), f"{name}: the student is not in evaluation mode")
    open_ones = [n for n, p in student.named_parameters() if p.requires_grad or p.grad is not None]
    require(not open_ones, f"{name}: leaves gradients on {', '.join(open_ones[:3])}")
    return student


def _task(teacher: Backbone) -> QuantizationTask:
    made = SyntheticImages(images_for(teacher, _IMAGES), teacher.guidance.nothing(_IMAGES))
    return QuantizationTask(teacher, FixedImages(made), _BITS, seeded())


class _EpochCheck:
    """Takes epochs in order, with the student in evaluation mode."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.epochs = 0

    def __call__(self, epoch: int, student: nn.Module) -> None:
        require(epoch == self.epochs, f"{self._name}: tells of epoch {epoch} after {self.epochs} epochs")
        require(not _is_training(student), f"{self._name}: shows on_epoch a student in training mode")
        self.epochs += 1


def _is_training(model: nn.Module) -> bool:
    return any(module.training for module in model.modules())


def _answers(model: nn.Module, teacher: Backbone) -> list[Tensor]:
    with torch.no_grad():
        return flat_tensors(model(images_for(teacher, 2, seed=1)))
