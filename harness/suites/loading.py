"""Reads a suite from YAML, shipped or the user's, and what a search wrote; knows where each value was given.

Knows the shape of the files alone: whether names exist and settings are in range is up to `checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.names import shown, suggestion
from harness.errors import UsageError
from harness.store.files import is_file
from harness.store.names import name_fault
from harness.suites.draft import Draft
from harness.suites.suite import ANCHORS, TUNED, Overrides, Suite
from harness.suites.yaml_files import parse_yaml
from methods.bits import Bits

_SHIPPED = Path(__file__).parent
_BLANK: Mapping[str, Any] = {"task": "", "backbones": (), "bits": (), "methods": ()}
"""Stand-ins of the fields that every suite has to give."""


@dataclass(frozen=True)
class TunedFile:
    """What `harness tune` wrote for `--set-file`."""

    origin: str
    """Option and file, as error messages name them."""
    overrides: Overrides = field(default_factory=dict)
    tuned: Overrides = field(default_factory=dict)
    """Method -> how a search found its overrides."""
    faults: tuple[str, ...] = ()


def suite_names() -> list[str]:
    """The shipped suites, sorted."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def suite_name(name_or_file: str) -> str:
    """The name of a suite that is given by name or by a YAML file, which need not be there."""
    path = Path(name_or_file)
    return path.stem if path.suffix in (".yaml", ".yml") else name_or_file


def load_suite(name_or_file: str) -> Suite:
    """The suite of that name, or from that YAML file, checked.

    Raises UsageError with every fault and its line.
    """
    draft = read_suite(name_or_file)
    faults = draft.all_faults()
    if faults:
        raise UsageError.of(faults)
    return draft.suite


def read_suite(name_or_file: str) -> Draft:
    """The suite of that name, or from that YAML file, as far as it can be read; not checked yet."""
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        path = _SHIPPED / f"{name_or_file}.yaml"
        if name_or_file not in suite_names():
            near = suggestion(name_or_file, suite_names())
            return unreadable(path.stem, [f"unknown suite '{shown(name_or_file)}'{near}"])
    if not is_file(path):
        return unreadable(path.stem, [f"no suite file at {shown(path)}"])
    misnamed = name_fault(path.stem)  # pictures and final suites are written under it
    if misnamed:
        return unreadable(path.stem, [f"--suite {shown(name_or_file)}: {misnamed}; rename the file"])
    file = parse_yaml(path)
    if file.data is None and file.faults:
        return unreadable(path.stem, file.faults)
    if not isinstance(file.data, dict):
        keys = ", ".join(sorted(_READERS))
        return unreadable(path.stem, [f"{path.name}:1: a suite is a mapping with the keys {keys}"])
    return _draft_of(path, file.data, file.lines).faulty(file.faults)


def read_tuned(file: str) -> TunedFile:
    """The file that `harness tune` wrote, as far as it can be read."""
    path, origin = Path(file), f"--set-file {shown(file)}"
    if not is_file(path):
        return TunedFile(origin, faults=(f"{origin}: no such file; harness tune writes best.yaml",))
    data, _, faults = parse_yaml(path)
    if faults:
        return TunedFile(origin, faults=faults)
    shape = _is_mapping_of_mappings(data) and "overrides" in data and set(data) <= {"overrides", TUNED}
    if not shape or not all(map(_is_mapping_of_mappings, data.values())):
        sentence = f"it has the keys overrides and {TUNED}, each mapping a method to its fields"
        return TunedFile(origin, faults=(f"{origin}: {sentence}",))
    return TunedFile(origin, data["overrides"], data.get(TUNED, {}))


def unreadable(name: str, faults: Iterable[str]) -> Draft:
    """The draft of a suite of which nothing is known but that it cannot be read."""
    return Draft(Suite(name=name, **_BLANK)).faulty(faults, [*_BLANK, "engines"])


def _draft_of(path: Path, data: Mapping[Any, Any], lines: Mapping[str, int]) -> Draft:
    origins = {"": f"{path.name}:1"} | {key: f"{path.name}:{line}" for key, line in lines.items()}
    values, faults, unsure = dict(_BLANK), [], []
    for key, value in data.items():
        origin = origins.get(str(key), origins[""])
        if key not in _READERS:
            faults.append(f"{origin}: unknown key '{shown(key)}'{suggestion(key, _READERS)}")
            continue
        try:
            values[key] = _READERS[key](key, value)
        except ValueError as error:
            faults += [f"{origin}: {sentence}" for sentence in str(error).splitlines()]
            unsure.append(key)
    for key in _BLANK:
        if key not in data:
            faults.append(f"{origins['']}: the key '{key}' is missing")
            unsure.append(key)
    return Draft(Suite(name=path.stem, **values), origins).faulty(faults, unsure)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key} must be text")
    return value


def _truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key} must be true or false")
    return value


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list, such as [{shown(value)}]")
    return value


def _names(key: str, value: Any) -> tuple[str, ...]:
    names = tuple(_list(key, value))
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{key} must be a list of names")
    return names


def _methods(key: str, value: Any) -> tuple[str, ...]:
    return tuple(name for name in _names(key, value) if name not in ANCHORS)


def _bits(key: str, value: Any) -> tuple[Bits, ...]:
    bits, faults = [], []
    for text in _list(key, value):
        try:
            bits.append(Bits.parse(text if isinstance(text, str) else shown(text)))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))
    return tuple(bits)


def _seeds(key: str, value: Any) -> tuple[int, ...]:
    seeds = tuple(_list(key, value))
    if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
        raise ValueError(f"{key} must be whole numbers")
    return seeds


def _overrides(key: str, value: Any) -> Overrides:
    found: Overrides = {} if value is None else value
    if not _is_mapping_of_mappings(found):
        raise ValueError(f"{key} maps a method or an engine to its fields")
    return found


def _variants(key: str, value: Any) -> dict[str, tuple[Mapping[str, Any], ...]]:
    found = {} if value is None else value
    if not isinstance(found, dict) or not all(_is_list_of_mappings(rows) for rows in found.values()):
        raise ValueError(f"{key} maps a method to a list of settings, such as [{{iterations: 100}}]")
    return {name: tuple(rows) for name, rows in found.items()}


def _is_mapping_of_mappings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, dict) for entry in value.values())


def _is_list_of_mappings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "description": _text,
    "task": _text,
    "backbones": _names,
    "bits": _bits,
    "methods": _methods,
    "seeds": _seeds,
    "budget": _text,
    "track": _text,
    "engines": _names,
    "scope": _text,
    "precision": _text,
    "overrides": _overrides,
    "variants": _variants,
    "oracle": _truth,
}
"""Key of a suite file -> what reads its value; it raises ValueError with a sentence per line."""
