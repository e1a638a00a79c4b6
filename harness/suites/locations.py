"""Where data, weights and the store are: flags first, then environment variables, then a config file.

    --data imagenet=DIR      HARNESS_DATA_IMAGENET=DIR       data: {imagenet: DIR}
    --weights deit_tiny=FILE HARNESS_WEIGHTS_DEIT_TINY=FILE  weights: {deit_tiny: FILE}
    --store DIR              HARNESS_STORE=DIR               store: DIR
                             HARNESS_WEIGHTS_DIR=DIR         weights_dir: DIR   (NAME.safetensors inside)

The config file is `harness.yaml` in the working folder, or the one of `--config`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from methods.settings import suggestion

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
    from backbones import SPECS
    from tasks.registry import get_task, task_names

    variables = os.environ if environment is None else environment
    stored = _read_config(config)
    data_names = [name for name in (get_task(task).data_name for task in task_names()) if name]
    faults: list[str] = []

    def merged(kind: str, flags: Sequence[str], known: Iterable[str]) -> dict[str, Path]:
        found = {name: Path(path) for name, path in stored.get(kind, {}).items()}
        for name in known:
            value = variables.get(f"HARNESS_{kind.upper()}_{name.upper()}")
            if value:
                found[name] = Path(value)
        for text in flags:
            name, separator, path = text.partition("=")
            if not separator or not path:
                faults.append(f"--{kind} {text}: write --{kind} NAME=PATH")
                continue
            found[name] = Path(path)
        for name in found:
            if name not in known:
                faults.append(f"--{kind} {name}: unknown name{suggestion(name, known)}")
        return {name: path.expanduser().absolute() for name, path in found.items()}

    merged_data = merged("data", data, data_names)
    merged_weights = merged("weights", weights, [n for n, s in SPECS.items() if not s.shipped_weights])
    folder = variables.get("HARNESS_WEIGHTS_DIR") or stored.get("weights_dir")
    if faults:
        raise UsageError.of(faults)
    chosen_store = store or variables.get("HARNESS_STORE") or stored.get("store") or DEFAULT_STORE
    return Locations(
        store=Path(chosen_store).expanduser().absolute(),
        data=merged_data,
        weights=merged_weights,
        weights_dir=Path(folder).expanduser().absolute() if folder else None,
    )


def _read_config(given: str | None) -> dict[str, Any]:
    import yaml

    path = Path(given or DEFAULT_CONFIG)
    if not path.is_file():
        if given is not None:
            raise UsageError(f"no config file at {path}")
        return {}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    faults = []
    if not isinstance(config, dict):
        raise UsageError(f"{path}: a config is a mapping with the keys {', '.join(_KEYS)}")
    for key, value in config.items():
        if key not in _KEYS:
            faults.append(f"{path}: unknown key '{key}'{suggestion(str(key), _KEYS)}")
        elif key in ("data", "weights") and not isinstance(value, dict):
            faults.append(f"{path}: {key} maps names to paths")
    if faults:
        raise UsageError.of(faults)
    return config
