"""Stage kinds by name: the function that does the work and the facts that its artifacts have.

Outsiders' kinds come in through a module with a top-level `STAGE_KINDS`, a tuple of `StageKind`, that the run
context names: every process imports it before its first stage.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from backbones.names import suggestion
from harness.errors import ArtifactError
from harness.stages.agreement import agree
from harness.stages.base import Stage, StageFunction
from harness.stages.evaluate import evaluate
from harness.stages.facts import (
    EvaluationFacts,
    Facts,
    StudentFacts,
    SynthesisFacts,
    TrainingFacts,
    verified_facts,
)
from harness.stages.quantize import quantize
from harness.stages.synthesize import synthesize
from harness.store import Store
from methods.base import TrainingEngine
from methods.registry import get_engine


def _never(_stage: Stage) -> bool:
    return False


def _always(_stage: Stage) -> bool:
    return True


def _trains(stage: Stage) -> bool:
    """What an engine that only calibrates sees of its images must go through in one piece."""
    return issubclass(get_engine(stage.settings["engine"]), TrainingEngine)


@dataclass(frozen=True)
class StageKind:
    """One kind of work."""

    name: str
    """What `Stage.kind` says."""
    function: StageFunction
    """Does the work; any exception it raises becomes the stage's failure."""
    facts: type[Facts]
    """The class of the facts that the function gives."""
    divides: Callable[[Stage], bool] = _never
    """Whether the function takes a stage's batches in as many parts as the context says: less memory does."""


class UnknownKind(ValueError):
    """A stage kind that is not registered."""


_BUILT_IN = (
    StageKind("shard", synthesize, SynthesisFacts),
    StageKind("synthesize", synthesize, SynthesisFacts),
    StageKind("train", quantize, TrainingFacts, divides=_trains),
    StageKind("quantize", quantize, StudentFacts, divides=_trains),
    StageKind("evaluate", evaluate, EvaluationFacts, divides=_always),
    StageKind("agree", agree, EvaluationFacts, divides=_always),
)
_kinds = {kind.name: kind for kind in _BUILT_IN}


def kind_names() -> list[str]:
    """Every registered kind, built-in ones first."""
    return list(_kinds)


def get_kind(name: str) -> StageKind:
    """The kind of that name; raises UnknownKind with near names."""
    if name not in _kinds:
        raise UnknownKind(f"unknown stage kind '{name}'{suggestion(name, _kinds)}")
    return _kinds[name]


def register_kind(kind: StageKind) -> None:
    """Make a kind known in this process; again is harmless. Raises ValueError when the name is taken."""
    if _kinds.setdefault(kind.name, kind) != kind:
        raise ValueError(f"the stage kind '{kind.name}' is taken; give yours another name")


def unregister_kind(name: str) -> None:
    """Forget a kind; nothing happens where it is not known."""
    _kinds.pop(name, None)


def is_made(stage: Stage, store: Store) -> bool:
    """Whether the stage's artifact is there, whole, and one of the stage's kind.

    A kind that this process does not know is not looked into: its workers do.
    """
    if stage.kind not in _kinds:
        return store.holds(stage.key)
    try:
        verified_facts(store, stage.key, _kinds[stage.kind].facts)
    except ArtifactError:
        return False
    return True


def load_kinds(module: str) -> None:
    """Register the `STAGE_KINDS` of an importable module.

    Raises ImportError when there is no such module, and ValueError when it offers no kinds.
    """
    offered = getattr(importlib.import_module(module), "STAGE_KINDS", ())
    if not offered:
        raise ValueError(f"the module {module} has no STAGE_KINDS")
    for kind in offered:
        register_kind(kind)
