"""Finds the weights of a model in what a checkpoint holds: below envelopes, and behind prefixes of names.

A checkpoint is a tree. Train scripts put the weights under a key (`model`, `state_dict`, `model_ema`), and
wrappers put a word before every name (`module.`, `_orig_mod.`, `model.`), in any order and more than once.
Every place of the tree is tried, and one counts only when it fits the model exactly, so nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

_DEEPEST = 6
"""Levels that are looked into; files with more are no checkpoints, and may hold themselves."""
_USUAL = ("", "model", "state_dict", "model_state_dict", "net", "network", "module", "params")
"""First keys in the order in which one is taken where several sets fit."""
_AVERAGED = re.compile(r"(^|[._])(ema|shadow|swa|averaged|teacher|momentum)([._]|$)")
"""Names of moving averages, which are taken only where there is nothing else, or on demand."""
_WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Words that compiling and sharding put into names, also in their middle."""


class Verdict(NamedTuple):
    """How tensors go with a model."""

    matching: int
    """Number of the model's weights that are there, by name."""
    fault: str
    """Why they do not fit, as a sentence without subject; empty where they do."""


@dataclass(frozen=True)
class WeightSet:
    """Tensors at one place of a checkpoint."""

    place: str
    """Keys and prefixes that lead there, joined by dots; empty at the top."""
    tensors: Mapping[str, Tensor]
    verdict: Verdict
    left_out: int = 0
    """Tensors beside it, under other prefixes of the same names."""

    @property
    def is_averaged(self) -> bool:
        """Whether the place is named like a moving average of the weights."""
        return bool(_AVERAGED.search(self.place))

    def is_below(self, place: str) -> bool:
        """Whether the set lies at that place or inside it."""
        return f"{self.place}.".startswith(f"{place}.")


def weight_sets(content: object, judge: Callable[[dict[str, Tensor]], Verdict], size: int) -> list[WeightSet]:
    """The sets of tensors in a checkpoint, those that would be taken first in front, each with its verdict.

    `size` is the model's number of tensors: groups with less than half of them behind a common prefix are
    parts of a model and no sets.
    """
    found = list(_explored(content, judge, size, ()))
    return sorted(found, key=lambda one: (one.is_averaged, _rank(one.place)))


def _rank(place: str) -> int:
    first = place.partition(".")[0]
    return _USUAL.index(first) if first in _USUAL else len(_USUAL)


def _explored(
    node: object, judge: Callable[[dict[str, Tensor]], Verdict], size: int, place: tuple[str, ...]
) -> Iterator[WeightSet]:
    if len(place) > _DEEPEST or not isinstance(node, Mapping):
        return
    tensors = _tensors_of(node)
    if tensors:
        yield from _grouped(WeightSet(".".join(place), tensors, judge(tensors)), judge, size)
    for key, value in node.items():
        if isinstance(key, str):
            yield from _explored(value, judge, size, (*place, key))


def _grouped(
    whole: WeightSet, judge: Callable[[dict[str, Tensor]], Verdict], size: int
) -> Iterator[WeightSet]:
    """A set, and where it does not fit the sets behind its prefixes."""
    yield whole
    if not whole.verdict.fault:
        return
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in whole.tensors.items():
        head, dot, rest = name.partition(".")
        if dot:
            groups.setdefault(head, {})[rest] = tensor
    for head, tensors in groups.items():
        if len(tensors) >= size / 2:
            place = f"{whole.place}.{head}" if whole.place else head
            left_out = whole.left_out + len(whole.tensors) - len(tensors)
            yield from _grouped(WeightSet(place, tensors, judge(tensors), left_out), judge, size)


def _tensors_of(node: Mapping[object, object]) -> dict[str, Tensor]:
    """The tensors directly in a mapping or a pickled model, under names without the words of wrappers."""
    import torch

    items: dict[object, object] = {**dict(_of_module(node)), **node}
    return {
        _WRAPPERS.sub("", key): value
        for key, value in items.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }


def _of_module(node: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Names and tensors of a whole pickled model, of which reading left the attributes of its modules."""
    attributes = getattr(node, "__dict__", {})
    transient = attributes.get("_non_persistent_buffers_set", ())
    for kind in ("_parameters", "_buffers"):
        for name, value in (attributes.get(kind) or {}).items():
            if name not in transient:
                yield f"{prefix}{name}", value
    if prefix.count(".") < _DEEPEST * 2:
        for name, module in (attributes.get("_modules") or {}).items():
            yield from _of_module(module, f"{prefix}{name}.")
