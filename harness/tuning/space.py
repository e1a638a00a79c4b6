"""The search space of a method with an engine: the settings both declare, narrowed or widened by a file.

    maskaq:
      entropy_weight: {low: 0.1, high: 3.0, log: true}   # another range
      mask_drop: {choices: [0.0, 0.3]}                   # a list instead
      images: {low: 32, high: 128}                       # a field that is not searched by itself
      head_weight: false                                 # not searched: keeps its value
    lsq_qat:
      learning_rate: {low: 1.0e-5, high: 1.0e-2}

A name is `maskaq.entropy_weight`; the fields of both are declared in `methods.settings`. Fields that a budget
sets (iterations, images, epochs) are searched only where the file names them: a search should not buy its
gain with more work than the row that it is compared with.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.names import shown, suggestion
from harness.errors import UsageError
from harness.store.files import is_file
from harness.suites.yaml_files import read_yaml
from methods.settings import converted, faults_of, type_of

_KEYS = ("low", "high", "log", "choices")


@dataclass(frozen=True)
class Dimension:
    """One searched setting: a range, or a list of choices."""

    owner: str
    """Name of the method or the engine that declares it."""
    field: str
    default: Any
    """Its value before the search, under the suite's budget and overrides."""
    integer: bool = False
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """`maskaq.entropy_weight`."""
        return f"{self.owner}.{self.field}"

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the dimension."""
        if self.choices:
            return value in self.choices
        assert self.low is not None
        assert self.high is not None
        return bool(self.low <= value <= self.high)

    def grid(self, points: int) -> list[Any]:
        """The choices, or `points` values from end to end, equally spaced (in the logarithm where `log`)."""
        if self.choices:
            return list(self.choices)
        assert self.low is not None
        assert self.high is not None
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        steps = [low + (high - low) * i / max(1, points - 1) for i in range(points)]
        # The ends are themselves: exp(log(x)) may leave the range by a rounding.
        values = [min(max(math.exp(v) if self.log else v, self.low), self.high) for v in steps]
        return list(dict.fromkeys(round(v) for v in values)) if self.integer else list(dict.fromkeys(values))

    def to_json(self) -> dict[str, Any]:
        """What identifies the dimension in a study."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v not in (None, ())}


@dataclass(frozen=True)
class Space:
    """The dimensions of a search, in order of declaration."""

    method: str
    engine: str
    dimensions: tuple[Dimension, ...]

    @property
    def defaults(self) -> dict[str, Any]:
        """Name -> value before the search; the first trial."""
        return {d.name: d.default for d in self.dimensions}

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Searched values as a method's overrides: its own fields, and the engine's nested under its name."""
        owners = {d.name: d for d in self.dimensions}
        result: dict[str, Any] = {}
        for name, value in values.items():
            dimension = owners[name]
            nested = dimension.owner == self.engine
            (result.setdefault(self.engine, {}) if nested else result)[dimension.field] = value
        return result

    def grid(self, points: int, most: int) -> list[dict[str, Any]]:
        """Every combination of the dimensions' grids; raises UsageError for more than `most`."""
        axes = [d.grid(points) for d in self.dimensions]
        count = math.prod(map(len, axes))
        if count > most:
            raise UsageError(
                f"--sampler grid: {len(axes)} settings at {points} points are {count:,} combinations, "
                f"{most:,} is the most: choose a few settings with --space, or fewer --grid-points"
            )
        names = [d.name for d in self.dimensions]
        return [dict(zip(names, point, strict=True)) for point in itertools.product(*axes)]


def declared_space(
    method: str, engine: str, synthesizer_config: Any, engine_config: Any, file: str | None = None
) -> Space:
    """The searched settings of a method (its config) and an engine (its config), changed by a space file.

    Raises UsageError with every fault of the file, or when nothing is left to search.
    """
    changes = _read(file) if file else {}
    faults: list[str] = []
    configs = {method: synthesizer_config, engine: engine_config}
    for owner in changes:
        if owner not in configs:
            faults.append(
                f"unknown method or engine '{shown(owner)}': this search is about {method} and {engine}"
            )
    dimensions = []
    for owner, config in configs.items():
        fields = {f.name: f for f in dataclasses.fields(config)}
        wanted = changes.get(owner, {})
        for name in wanted:
            if name not in fields:
                faults.append(f"{owner}: unknown field '{shown(name)}'{suggestion(name, fields)}")
        for name, field in fields.items():
            if wanted.get(name, _is_searched(field)) is False:
                continue
            faults_before = len(faults)
            change = wanted.get(name, {})
            faults += _change_faults(owner, name, type(config), change)
            if len(faults) == faults_before:
                dimensions.append(_dimension(owner, config, field, {} if change is True else change))
    if faults:
        raise UsageError.of([f"--space {shown(file)}: {fault}" for fault in faults])
    if not dimensions:
        where = (
            f"--space {shown(file)}: it leaves nothing to search of" if file else "nothing can be searched of"
        )
        raise UsageError(f"{where} {method} with {engine}: name some of their fields in a --space file")
    return Space(method, engine, tuple(dimensions))


def _is_searched(field: Any) -> bool:
    return field.metadata.get("tunable", False) and not field.metadata.get("budgets")


def _dimension(owner: str, config: Any, field: Any, change: Mapping[str, Any]) -> Dimension:
    """The field as a dimension, once its entry is known to be right; choices stand before a range."""
    wanted = type_of(type(config), field.name)
    facts = {**field.metadata, **change}
    for end in ("low", "high"):
        if end in change:
            facts[end] = converted(type(config), field.name, change[end])
    if "choices" in change and typing.get_origin(wanted) is not tuple:
        facts["choices"] = [converted(type(config), field.name, value) for value in change["choices"]]
    elif "choices" not in change and ("low" in change or "high" in change):
        facts["choices"] = None
    integer = wanted is int
    return Dimension(
        owner=owner,
        field=field.name,
        default=getattr(config, field.name),
        integer=integer and not facts["choices"],
        low=facts["low"] if not facts["choices"] else None,
        high=facts["high"] if not facts["choices"] else None,
        log=bool(facts["log"]) and not facts["choices"],
        choices=tuple(dict.fromkeys(facts["choices"] or ())),
    )


def _change_faults(owner: str, name: str, Config: type, change: Any) -> list[str]:
    """What is wrong with one field's entry: its shape, values that the field refuses, an empty range."""
    where = f"{owner}.{name}"
    if change is True:
        change = {}
    if not isinstance(change, Mapping):
        return [f"{where}: write {{low: A, high: B}}, {{choices: [A, B]}}, or false to leave it out"]
    unknown = [key for key in change if key not in _KEYS]
    if unknown:
        return [f"{where}: unknown key '{shown(unknown[0])}'{suggestion(unknown[0], _KEYS)}"]
    if "choices" in change and not (isinstance(change["choices"], list) and change["choices"]):
        return [f"{where}: choices is a list with at least one value"]
    if not isinstance(change.get("log", False), bool):
        return [f"{where}: log is true or false"]
    values = list(change.get("choices", ())) + [change[end] for end in ("low", "high") if end in change]
    faults = [f"{where}: {fault}" for value in values for fault in faults_of(Config, {name: value})]
    if typing.get_origin(type_of(Config, name)) is tuple and not all(isinstance(v, str) for v in values):
        faults.append(f"{where}: write several numbers as one text, such as 10+20")
    return faults or _range_faults(where, name, Config, change)


def _range_faults(where: str, name: str, Config: type, change: Mapping[str, Any]) -> list[str]:
    """What is wrong with the range of an entry, its own or what it leaves of the declared one."""
    metadata = {f.name: f.metadata for f in dataclasses.fields(Config)}[name]
    if "choices" in change or (metadata.get("choices") and not change):
        return []
    low, high = (change.get(end, metadata.get(end)) for end in ("low", "high"))
    if low is None or high is None or type_of(Config, name) not in (int, float):
        return [f"{where}: has no range of its own: give low and high, or choices"]
    lowest = converted(Config, name, low)
    if lowest > converted(Config, name, high):
        return [f"{where}: low {low} is above high {high}"]
    if change.get("log", metadata.get("log")) and lowest <= 0:
        return [f"{where}: a logarithmic range starts above 0, not at {low}"]
    return []


def _read(file: str) -> dict[str, Any]:
    path = Path(file)
    if not is_file(path):
        raise UsageError(f"--space {shown(file)}: no such file")
    data, _ = read_yaml(path)
    if not isinstance(data, dict) or not all(isinstance(fields, dict) for fields in data.values()):
        raise UsageError(f"--space {shown(file)}: it maps a method or an engine to its fields")
    return data
