"""What contracts of methods and of engines have in common: rules, and what must stay as it was."""

from __future__ import annotations

import dataclasses
import pickle
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from backbones.base import FAMILIES
from methods.base import Engine, Evidence, Method, Synthesizer
from methods.settings import BUDGETS, configure, faults_of


class ContractBroken(AssertionError):
    """A method or an engine does not do what its contract says; one sentence names it and the rule."""


def require(condition: object, sentence: str) -> None:
    """Raise ContractBroken with the sentence unless the condition holds."""
    if not condition:
        raise ContractBroken(sentence)


def check_config(name: str, Config: type) -> None:
    """A frozen dataclass whose settings have helps, and whose values under every budget are valid."""
    require(
        dataclasses.is_dataclass(Config) and Config.__dataclass_params__.frozen,  # type: ignore[attr-defined]
        f"{name}: Config is not a frozen dataclass",
    )
    for field in dataclasses.fields(Config):
        require(field.metadata.get("help"), f"{name}: the setting {field.name} has no help")
    for budget in BUDGETS:
        values = dataclasses.asdict(configure(Config, budget, {}))
        faults = "; ".join(faults_of(Config, values))
        require(not faults, f"{name}: under the budget {budget} {faults}")


def check_families(name: str, supporting: type[Synthesizer] | type[Engine]) -> None:
    """Families are declared, at least one, and all of them known: others are refused by the harness."""
    require(supporting.families, f"{name}: no family of backbones is supported")
    unknown = ", ".join(sorted(supporting.families - FAMILIES))
    require(not unknown, f"{name}: unknown families {unknown}")


def check_evidence(name: str, described: Method | type[Engine]) -> None:
    """A title and a citation; sources with a known kind of evidence; deviations and defaults in words."""
    require(described.title, f"{name}: the title is empty")
    require(described.citation, f"{name}: the citation is empty")
    for part, evidence in described.sources.items():
        require(evidence in get_args(Evidence), f"{name}: {part} comes from '{evidence}', an unknown source")
    for sentences in (described.deviations, described.not_established):
        require(
            isinstance(sentences, tuple) and all(isinstance(s, str) and s for s in sentences),
            f"{name}: deviations and not_established are tuples of sentences",
        )


@contextmanager
def random_state_kept(name: str) -> Iterator[None]:
    """Raise ContractBroken if the block draws from global random numbers."""
    before = _random_states()
    yield
    for library, state in _random_states().items():
        require(state == before[library], f"{name}: draws from the global random numbers of {library}")


@contextmanager
def model_kept(name: str, whose: str, model: nn.Module) -> Iterator[None]:
    """Raise ContractBroken if the block leaves the model with another state, gradients or hooks."""
    before, values = _traits(model), {key: value.clone() for key, value in model.state_dict().items()}
    yield
    after = model.state_dict()
    changed = sorted(key for key, value in values.items() if not torch.equal(value, after[key]))
    require(not changed, f"{name}: changes {', '.join(changed[:3])} of the {whose}")
    for trait, value in _traits(model).items():
        require(value == before[trait], f"{name}: leaves the {whose} with other {trait}")


class ProgressCheck:
    """A Progress that takes only whole steps within the total and losses that are plain numbers."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, step: int, total: int, losses: Mapping[str, float]) -> None:
        """Raise ContractBroken on anything else."""
        require(
            type(step) is int and type(total) is int and 0 < step <= total,
            f"{self._name}: reports step {step!r} of {total!r}",
        )
        check_losses(self._name, losses)


def check_losses(name: str, losses: Mapping[str, float]) -> None:
    """Loss terms are plain floats by name."""
    for term, value in losses.items():
        require(type(value) is float, f"{name}: reports the loss {term} as {type(value).__name__}, not float")


def flat_tensors(value: Any) -> list[Tensor]:
    """Every tensor of a model's answer, in order, however it is nested."""
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in flat_tensors(part)] if isinstance(value, tuple | list) else []


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether two lists hold the same tensors, bit for bit."""
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _random_states() -> dict[str, object]:
    return {
        "torch": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy": pickle.dumps(np.random.get_state()),
    }


def _traits(model: nn.Module) -> dict[str, object]:
    modules = list(model.modules())
    return {
        "training modes": [module.training for module in modules],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        "needs of gradients": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad is None for parameter in model.parameters()],
    }
