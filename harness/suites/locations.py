"""Where data, weights and the store are: flags first, then environment variables, then a config file.

    --data imagenet=DIR      HARNESS_DATA_IMAGENET=DIR       data: {imagenet: DIR}
    --weights deit_tiny=FILE HARNESS_WEIGHTS_DEIT_TINY=FILE  weights: {deit_tiny: FILE}
    --store DIR              HARNESS_STORE=DIR               store: DIR
                             HARNESS_WEIGHTS_DIR=DIR         weights_dir: DIR   (NAME.safetensors inside)

The config file is `harness.yaml` in the working folder, or the one of `--config`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones import SPECS
from backbones.names import suggestion
from harness.errors import UsageError
from harness.suites.yaml_files import parse_yaml
from tasks.registry import get_task, task_names

DEFAULT_STORE = "dfq-store"
DEFAULT_CONFIG = "harness.yaml"
_KEYS = ("data", "weights", "store", "weights_dir")


@dataclass(frozen=True)
class Locations:
    """Where things lie, as absolute paths; nothing is checked for existence yet."""

    store: Path
    data: Mapping[str, Path] = field(default_factory=dict)
    weights: Mapping[str, Path] = field(default_factory=dict)
    weights_dir: Path | None = None


def find_locations(
    data: Sequence[str] = (),
    weights: Sequence[str] = (),
    store: str | None = None,
    config: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Locations:
    """Merge flags (`NAME=PATH` texts), environment and config file; raises UsageError with every fault."""
    places, faults = read_locations(data, weights, store, config, environment)
    if faults:
        raise UsageError.of(faults)
    return places


def read_locations(
    data: Sequence[str] = (),
    weights: Sequence[str] = (),
    store: str | None = None,
    config: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[Locations, list[str]]:
    """Flags, environment and config file merged as far as they can be read, and a sentence per fault."""
    variables = os.environ if environment is None else environment
    stored, faults = _read_config(Path(config or DEFAULT_CONFIG), required=config is not None)
    data_names = [name for name in (get_task(task).data_name for task in task_names()) if name]
    weight_names = [name for name, spec in SPECS.items() if not spec.shipped_weights]
    found = {}
    for kind, flags, known in (("data", data, data_names), ("weights", weights, weight_names)):
        found[kind], wrong = _merged(kind, flags, known, stored.get(kind, {}), variables)
        faults += wrong
    folder = variables.get("HARNESS_WEIGHTS_DIR") or stored.get("weights_dir")
    places = Locations(
        store=_absolute(store or variables.get("HARNESS_STORE") or stored.get("store") or DEFAULT_STORE),
        data=found["data"],
        weights=found["weights"],
        weights_dir=_absolute(folder) if folder else None,
    )
    return places, faults


def _merged(
    kind: str,
    flags: Sequence[str],
    known: Sequence[str],
    stored: Mapping[str, Any],
    variables: Mapping[str, str],
) -> tuple[dict[str, Path], list[str]]:
    """Name -> path from the config, then the environment, then the flags; and what is wrong with them."""
    faults = []
    given = {str(name): str(path) for name, path in stored.items()}
    for name in known:
        value = variables.get(f"HARNESS_{kind.upper()}_{name.upper()}")
        if value:
            given[name] = value
    for text in flags:
        name, separator, path = text.partition("=")
        if separator and path:
            given[name] = path
        else:
            faults.append(f"--{kind} {text}: write --{kind} NAME=PATH")
    faults += [
        f"--{kind} {name}: unknown name{suggestion(name, known)}" for name in given if name not in known
    ]
    return {name: _absolute(path) for name, path in given.items() if name in known}, faults


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _read_config(path: Path, required: bool) -> tuple[dict[str, Any], list[str]]:
    """The entries of a config file that can be used, and a sentence per fault."""
    if not path.is_file():
        return {}, [f"no config file at {path}"] if required else []
    file = parse_yaml(path)
    if file.faults:
        return {}, list(file.faults)
    config = {} if file.data is None else file.data
    if not isinstance(config, dict):
        return {}, [f"{path}: a config is a mapping with the keys {', '.join(_KEYS)}"]
    faults, good = [], {}
    for key, value in config.items():
        if key not in _KEYS:
            faults.append(f"{path}: unknown key '{key}'{suggestion(str(key), _KEYS)}")
        elif key in ("data", "weights") and not isinstance(value, dict):
            faults.append(f"{path}: {key} maps names to paths")
        elif key in ("store", "weights_dir") and not isinstance(value, str | None):
            faults.append(f"{path}: {key} is a path")
        else:
            good[key] = value
    return good, faults
