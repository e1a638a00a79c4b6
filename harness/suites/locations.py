"""Where data, weights and the store are: flags first, then environment variables, then a config file.

    --data imagenet=DIR      HARNESS_DATA_IMAGENET=DIR       data: {imagenet: DIR}
    --weights deit_tiny=FILE HARNESS_WEIGHTS_DEIT_TINY=FILE  weights: {deit_tiny: FILE}
    --store DIR              HARNESS_STORE=DIR               store: DIR
                             HARNESS_WEIGHTS_DIR=DIR         weights_dir: DIR   (NAME.safetensors inside)

The config file is `harness.yaml` in the working folder, or the one of `--config`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones import SPECS
from backbones.names import shown, suggestion
from harness.errors import UsageError
from harness.store.files import is_file
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
    file = Path(config or DEFAULT_CONFIG)
    stored, faults = _read_config(file, required=config is not None)
    data_names = [name for name in (get_task(task).data_name for task in task_names()) if name]
    weight_names = [name for name, spec in SPECS.items() if not spec.shipped_weights]
    found = {}
    for kind, flags, known in (("data", data, data_names), ("weights", weights, weight_names)):
        given, wrong = _merged(kind, flags, known, stored.get(kind, {}), variables, file)
        paths = {name: _path(origin, text, faults) for name, (origin, text) in given.items()}
        found[kind] = {name: path for name, path in paths.items() if path is not None}
        faults += wrong
    stores = _given_at("store", "--store", store, variables, stored, file)
    folders = _given_at("weights_dir", "", None, variables, stored, file)
    places = Locations(
        store=_first(stores, faults) or Path(DEFAULT_STORE).absolute(),
        data=found["data"],
        weights=found["weights"],
        weights_dir=_first(folders, faults),
    )
    return places, faults


def _merged(
    kind: str,
    flags: Sequence[str],
    known: Sequence[str],
    stored: Mapping[str, Any],
    variables: Mapping[str, str],
    config: Path,
) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Name -> origin and path from the config, then the environment, then the flags; and what is wrong."""
    faults = []
    given = {name: (f"{config}: {kind}: {shown(name)}", path) for name, path in stored.items()}
    for name in known:
        variable = f"HARNESS_{kind.upper()}_{name.upper()}"
        if value := variables.get(variable):
            given[name] = (variable, value)
    for text in flags:
        name, separator, path = text.partition("=")
        if separator and path:
            given[name] = (f"--{kind} {shown(name)}", path)
        else:
            faults.append(f"--{kind} {shown(text)}: write --{kind} NAME=PATH")
    faults += [
        f"{origin}: unknown name{suggestion(name, known)}"
        for name, (origin, _) in given.items()
        if name not in known
    ]
    return {name: entry for name, entry in given.items() if name in known}, faults


def _given_at(
    key: str,
    flag: str,
    typed: str | None,
    variables: Mapping[str, str],
    stored: Mapping[str, Any],
    config: Path,
) -> dict[str, str | None]:
    """Origin -> path of a single place, the first that is given counts."""
    variable = f"HARNESS_{key.upper()}"
    return {flag: typed, variable: variables.get(variable), f"{config}: {key}": stored.get(key)}


def _first(given: Mapping[str, str | None], faults: list[str]) -> Path | None:
    """The first path of origin -> text; None where there is none, or it is a fault."""
    return next((_path(origin, text, faults) for origin, text in given.items() if text), None)


def _path(origin: str, text: str, faults: list[str]) -> Path | None:
    """The text as an absolute path; None, and a fault more, for one that no file can have."""
    try:
        path = Path(text).expanduser().absolute()
        os.stat(path)
    except RuntimeError:
        reason = "there is no such user"
    except ValueError:
        reason = "no path has such characters"
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            return path
        reason = "longer than a path can be"
    else:
        return path
    faults.append(f"{origin} {shown(text)}: {reason}")
    return None


def _read_config(path: Path, required: bool) -> tuple[dict[str, Any], list[str]]:
    """The entries of a config file that can be used, and a sentence per fault."""
    if not is_file(path):
        return {}, [f"no config file at {shown(path)}"] if required else []
    file = parse_yaml(path)
    if file.faults:
        return {}, list(file.faults)
    config = {} if file.data is None else file.data
    if not isinstance(config, dict):
        return {}, [f"{path}: a config is a mapping with the keys {', '.join(_KEYS)}"]
    faults, good = [], {}
    for key, value in config.items():
        if key not in _KEYS:
            faults.append(f"{path}: unknown key '{shown(key)}'{suggestion(key, _KEYS)}")
        elif key in ("data", "weights") and not _is_mapping_of_texts(value):
            faults.append(f"{path}: {key} maps names to paths")
        elif key in ("store", "weights_dir") and not isinstance(value, str | None):
            faults.append(f"{path}: {key} is a path")
        else:
            good[key] = value
    return good, faults


def _is_mapping_of_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in (*value, *value.values()))
