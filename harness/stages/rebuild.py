"""Builds again, from a stage's settings, what the plan chose: teacher, task, synthesizer, engine, student."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from backbones import load_backbone
from harness.stages.base import RunContext, Stage
from harness.stages.facts import StudentRecipe, student_facts
from harness.store import Store
from methods.base import TrainingState
from methods.bits import Bits
from methods.registry import get_engine, get_method
from methods.scope import Scope
from methods.settings import configure
from tasks.registry import get_task

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from backbones import Backbone
    from methods.base import Engine, Synthesizer
    from tasks.base import Task

_STUDENT, _OPTIMIZER = "student.", "optimizer."
"""What the names of a stored student's tensors begin with, and those of what trains it."""
_GENERATOR, _EPOCH = "training_generator", "epoch"
"""Where a training left its random numbers, and how many epochs were over."""


def teacher_of(stage: Stage, context: RunContext) -> Backbone:
    """The stage's teacher; raises ValueError when its weights changed since the plan was made."""
    name = stage.settings["backbone"]
    teacher = _load_once(name, context.weights[name], context.device)
    if teacher.weights_sha256 != stage.settings["weights_sha256"]:
        raise ValueError(f"the weights of {name} changed since the run was planned")
    return teacher


@functools.lru_cache(maxsize=1)
def _load_once(name: str, weights: Path, device: str) -> Backbone:
    return load_backbone(name, weights, device)


def task_of(name: str, context: RunContext) -> Task:
    """The task of that name on the context's data."""
    task_class = get_task(name)
    return task_class(context.data.get(task_class.data_name or ""))


def synthesizer_of(settings: Mapping[str, Any]) -> Synthesizer:
    """The synthesizer that a stage's settings name, with the config that they hold."""
    synthesizer = get_method(settings["synthesizer"]).synthesizer
    assert synthesizer is not None
    return synthesizer(configure(synthesizer.Config, "paper", settings["config"]))


def engine_of(recipe: StudentRecipe) -> Engine:
    """The engine of a recipe, with the config that it holds."""
    engine = get_engine(recipe.engine)
    config = configure(engine.Config, "paper", recipe.engine_config)
    return engine(config, cast(Scope, recipe.scope))


def stored_student(store: Store, key: str, teacher: Backbone) -> nn.Module:
    """The quantized model of the artifact `key`, in evaluation mode; raises ArtifactError."""
    return student_of(student_facts(store, key).recipe, store.tensors(key), teacher)


def student_of(recipe: StudentRecipe, tensors: Mapping[str, Tensor], teacher: Backbone) -> nn.Module:
    """The quantized model among an artifact's tensors, in evaluation mode."""
    model = engine_of(recipe).prepare(teacher, Bits.parse(recipe.bits))
    model.load_state_dict(_named(_STUDENT, tensors))
    return model.to(teacher.device).eval()


def student_state(student: nn.Module) -> dict[str, Any]:
    """The tensors that `stored_student` needs, under the names it looks for."""
    return {f"{_STUDENT}{name}": value for name, value in student.state_dict().items()}


def training_tensors(state: TrainingState) -> dict[str, Any]:
    """A training between two epochs as tensors of an artifact, its student as `student_of` needs it."""
    import torch

    return {
        **{f"{_STUDENT}{name}": value for name, value in state.student.items()},
        **{f"{_OPTIMIZER}{name}": value for name, value in state.optimizer.items()},
        _GENERATOR: state.generator,
        _EPOCH: torch.tensor(state.epoch),
    }


def stored_training(store: Store, key: str) -> TrainingState:
    """The inverse of `training_tensors`, from the artifact `key`; raises ArtifactError."""
    tensors = store.tensors(key)
    student, optimizer = _named(_STUDENT, tensors), _named(_OPTIMIZER, tensors)
    return TrainingState(int(tensors[_EPOCH]), student, optimizer, tensors[_GENERATOR])


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it."""
    return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}


def generator_of(seed: int, purpose: str) -> Generator:
    """A CPU generator whose stream depends on the trial's seed and the purpose alone."""
    import torch

    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
