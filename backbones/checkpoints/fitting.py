"""Whether tensors are the weights of a specification's model: names, shapes and kinds of numbers, no values.

Everything happens on torch's meta device, which holds no numbers, so it costs well under a second.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from backbones.base import BackboneSpec
from backbones.checkpoints.unwrapping import Verdict
from backbones.registry import family_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_SHOWN = 3
"""Names that a message lists."""


class Fitting:
    """Judges tensors against the model of a specification."""

    def __init__(self, spec: BackboneSpec) -> None:
        import torch

        self._spec = spec
        self._family = family_of(spec)
        with torch.random.fork_rng(devices=[]):
            self._model = self._built(torch.device("meta"))
        self._expected: dict[str, Tensor] = self._model.state_dict()

    @property
    def size(self) -> int:
        """Number of tensors of the model."""
        return len(self._expected)

    def __call__(self, tensors: Mapping[str, Tensor]) -> Verdict:
        """How the tensors, under the names of a family's known layouts, go with the model."""
        import torch

        empty = {
            name: torch.empty(value.shape, dtype=value.dtype, device="meta")
            for name, value in tensors.items()
        }
        try:
            converted = self._family.convert_weights(empty, self._model)
        except (ValueError, RuntimeError, LookupError, TypeError) as error:
            return Verdict(0, " ".join(str(error).split())[:300] or type(error).__name__)
        matching = len(converted.keys() & self._expected.keys())
        return Verdict(matching, self._fault(converted, tensors, matching))

    def _built(self, device: torch.device) -> nn.Module:
        try:
            with device:
                return self._family.build(self._spec)
        except (RuntimeError, NotImplementedError):  # a constructor that looks at numbers
            return self._family.build(self._spec)

    def _fault(self, converted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], matching: int) -> str:
        lacking = [name for name in self._expected if name not in converted]
        unknown = [name for name in converted if name not in self._expected]
        if not matching:
            return f"its first names are {_listed(tensors)}; expected are {_listed(self._expected)}"
        faults = [f"it lacks {_listed(lacking)}"] if lacking else []
        faults += [f"it has {_listed(unknown)}, which the model has not"] if unknown else []
        return "; ".join([*self._wrong_shapes(converted), *faults]) or self._wrong_numbers(converted)

    def _wrong_shapes(self, converted: Mapping[str, Tensor]) -> list[str]:
        """One sentence on tensors of another shape: another number of classes, where that is what differs."""
        wrong = [
            name
            for name, expected in self._expected.items()
            if name in converted and converted[name].shape != expected.shape
        ]
        if not wrong:
            return []
        of_classes = [name for name in wrong if self._is_of_classes(name, converted)]
        first = (of_classes or wrong)[0]
        found, expected = converted[first].shape, self._expected[first].shape
        said = f"{first} is {_sizes(found)} instead of {_sizes(expected)}"
        more = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        classes = self._spec.num_classes
        if of_classes:
            surplus = expected[0] - classes
            return [f"has {found[0] - surplus} classes, {self._spec.name} {classes} ({said}{more})"]
        return [said + more]

    def _is_of_classes(self, name: str, converted: Mapping[str, Tensor]) -> bool:
        """Whether a tensor of the heads has a row per class (a detector's one more) and other rows alone."""
        found, expected = converted[name].shape, self._expected[name].shape
        rows = (self._spec.num_classes, self._spec.num_classes + self._spec.is_detector)
        in_heads = name.startswith(self._family.head_prefixes)
        return in_heads and found[1:] == expected[1:] and len(found) > 0 and expected[0] in rows

    def _wrong_numbers(self, converted: Mapping[str, Tensor]) -> str:
        """A fault where a weight is stored in whole numbers, as by quantized models: no cast undoes that."""
        wrong = [
            name
            for name, expected in self._expected.items()
            if expected.is_floating_point() and not converted[name].is_floating_point()
        ]
        return f"{_listed(wrong)} are {converted[wrong[0]].dtype}, no floating-point numbers" if wrong else ""


def _sizes(shape: Collection[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _listed(names: Collection[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(list(names)[:_SHOWN]) + more
