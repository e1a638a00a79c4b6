"""Hyper-parameters declared once, as frozen dataclass fields with a line of help, a range and budgets.

    @dataclass(frozen=True)
    class PsaqVitConfig:
        iterations: int = setting(1000, "Image optimisation steps.", low=1, high=4000, fast=300, smoke=2)

The default is the paper's value (budget `paper`); `fast` and `smoke` replace it under those budgets. The
same declaration feeds the suite's overrides, `--set`, the MLflow params and the Optuna search space.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Any

from backbones.names import quoted, shown, suggestion

BUDGETS = ("paper", "fast", "smoke")


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
    log: bool = False,
    tunable: bool = True,
    fast: Any = None,
    smoke: Any = None,
) -> Any:
    """A dataclass field. `low`/`high` bound valid values and the search; `choices` lists them instead."""
    metadata = {
        "help": help,
        "low": low,
        "high": high,
        "choices": choices,
        "log": log,
        "tunable": tunable and (choices is not None or (low is not None and high is not None)),
        "budgets": {k: v for k, v in (("fast", fast), ("smoke", smoke)) if v is not None},
    }
    return dataclasses.field(default=default, metadata=metadata)


def configure(Config: type, budget: str, overrides: Mapping[str, Any]) -> Any:
    """An instance of `Config` under a budget with overrides on top.

    Raises ValueError with every fault in one message: unknown fields with near names, wrong types, values
    out of range.
    """
    faults = faults_of(Config, overrides)
    if faults:
        raise ValueError("; ".join(faults))
    types = _types(Config)
    values = {}
    for field in dataclasses.fields(Config):
        budgeted = field.metadata.get("budgets", {})
        if field.name in overrides:
            values[field.name] = _converted(overrides[field.name], types[field.name])
        elif budget in budgeted:
            values[field.name] = budgeted[budget]
    return Config(**values)


def type_of(Config: type, field: str) -> Any:
    """The type that a field is annotated with."""
    return _types(Config)[field]


def converted(Config: type, field: str, value: Any) -> Any:
    """A value without `faults_of`, as the type of its field."""
    return _converted(value, type_of(Config, field))


def faults_of(Config: type, overrides: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with overrides for `Config`, a sentence each; empty when all is well."""
    fields = {field.name: field for field in dataclasses.fields(Config)}
    types = _types(Config)
    faults = []
    for name, value in overrides.items():
        if name not in fields:
            faults.append(f"unknown field '{shown(name)}'{suggestion(name, fields)}")
            continue
        try:
            converted = _converted(value, types[name])
        except (TypeError, ValueError, OverflowError):
            faults.append(f"{name}={quoted(value)} is not of type {_type_name(types[name])}")
            continue
        faults += _range_faults(name, converted, fields[name].metadata)
    return faults


@functools.cache
def _types(Config: type) -> dict[str, Any]:
    """Field -> type; looked up once, since a plan asks hundreds of times."""
    return typing.get_type_hints(Config)


def _range_faults(name: str, value: Any, metadata: Mapping[str, Any]) -> list[str]:
    choices, low, high = metadata.get("choices"), metadata.get("low"), metadata.get("high")
    if choices is not None and value not in choices:
        return [f"{name}={quoted(value)} is not one of {', '.join(map(str, choices))}"]
    if low is not None and value < low:
        return [f"{name}={quoted(value)} is below {low}"]
    if high is not None and value > high:
        return [f"{name}={quoted(value)} is above {high}"]
    return []


def _converted(value: Any, wanted: Any) -> Any:
    """`value` (from YAML, or text from the command line) as the field's type; strict otherwise."""
    if wanted is bool:
        if isinstance(value, bool):
            return value
        truth = {"true": True, "false": False}.get(str(value).lower())
        return _refuse() if truth is None else truth
    if wanted is int:
        if not _is_number(value) or (isinstance(value, float) and not value.is_integer()):
            return _refuse()
        return int(value)
    if wanted is float:
        if not _is_number(value):
            return _refuse()
        number = float(value)
        return number if number == number and abs(number) != float("inf") else _refuse()
    if wanted is str or typing.get_origin(wanted) is typing.Literal:
        return value if isinstance(value, str) else _refuse()
    if typing.get_origin(wanted) is tuple:
        if not isinstance(value, str | list | tuple):
            return _refuse()
        parts = value.split("+") if isinstance(value, str) else value
        return tuple(_converted(part, typing.get_args(wanted)[0]) for part in parts)
    return value


def _is_number(value: Any) -> bool:
    """Whether a value is a number, or text that may be one: Python would read bytes as one too."""
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _refuse() -> Any:
    raise TypeError


def _type_name(wanted: Any) -> str:
    return getattr(wanted, "__name__", str(wanted))
