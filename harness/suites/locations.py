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

from backbones.names import suggestion
from backbones.registry import SPECS
from harness.errors import UsageError
from harness.suites.loading import parse_yaml
from tasks.registry import get_task, task_names

DEFAULT_STORE = "dfq-store"
DEFAULT_CONFIG = "harness.yaml"
_KEYS = ("data", "weights", "store", "weights_dir")


@dataclass(frozen=True)
class Locations:
    """Resolved folders and files, absolute; nothing is checked for existence yet."""

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
    locations, faults = read_locations(data, weights, store, config, environment)
    if faults:
        raise UsageError.of(faults)
    return locations


def read_locations(
    data: Sequence[str] = (),
    weights: Sequence[str] = (),
    store: str | None = None,
    config: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[Locations, list[str]]:
    """What `find_locations` gives, as far as it can be read, and every fault that was met."""
    variables = os.environ if environment is None else environment
    stored, faults = _read_config(config)
    data_names = [name for name in (get_task(task).data_name for task in task_names()) if name]
    weight_names = [name for name, spec in SPECS.items() if not spec.shipped_weights]
    found_data, data_faults = _merged("data", stored.get("data", {}), data, data_names, variables)
    found_weights, weight_faults = _merged(
        "weights", stored.get("weights", {}), weights, weight_names, variables
    )
    folder = variables.get("HARNESS_WEIGHTS_DIR") or stored.get("weights_dir")
    chosen = store or variables.get("HARNESS_STORE") or stored.get("store") or DEFAULT_STORE
    locations = Locations(
        store=_absolute(chosen),
        data=found_data,
        weights=found_weights,
        weights_dir=_absolute(folder) if folder else None,
    )
    return locations, [*faults, *data_faults, *weight_faults]


def _merged(
    kind: str,
    stored: Mapping[str, str],
    flags: Sequence[str],
    known: Sequence[str],
    variables: Mapping[str, str],
) -> tuple[dict[str, Path], list[str]]:
    """Paths by name from config file, environment and flags, each over the one before, and what is wrong."""
    found, faults = dict(stored), []
    for name in known:
        value = variables.get(f"HARNESS_{kind.upper()}_{name.upper()}")
        if value:
            found[name] = value
    for text in flags:
        name, separator, path = text.partition("=")
        if not separator or not path:
            faults.append(f"--{kind} {text}: write --{kind} NAME=PATH")
            continue
        found[name] = path
    faults += [
        f"--{kind} {name}: unknown name{suggestion(name, known)}" for name in found if name not in known
    ]
    return {name: _absolute(path) for name, path in found.items() if name in known}, faults


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _read_config(given: str | None) -> tuple[dict[str, Any], list[str]]:
    """The usable entries of the config file, and a sentence for each of the others."""
    path = Path(given or DEFAULT_CONFIG)
    if not path.is_file():
        return {}, [f"--config {given}: no such file"] if given is not None else []
    file = parse_yaml(path)
    if file.faults:
        return {}, list(file.faults)
    config = {} if file.data is None else file.data
    if not isinstance(config, dict):
        return {}, [f"{path}: a config is a mapping with the keys {', '.join(_KEYS)}"]
    faults = [sentence for key, value in config.items() if (sentence := _config_fault(key, value))]
    usable = {key: value for key, value in config.items() if not _config_fault(key, value)}
    return usable, [f"{path}: {sentence}" for sentence in faults]


def _config_fault(key: Any, value: Any) -> str:
    """What is wrong with one entry of the config file; empty where nothing is."""
    if key not in _KEYS:
        return f"unknown key '{key}'{suggestion(str(key), _KEYS)}"
    if key not in ("data", "weights"):
        return "" if isinstance(value, str) and value else f"{key} is a path, as text"
    paths = isinstance(value, dict) and all(
        isinstance(entry, str) and entry for pair in value.items() for entry in pair
    )
    return "" if paths else f"{key} maps names to paths, as text"
