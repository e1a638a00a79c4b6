"""`harness doctor`: what is installed, which data, weights and GPUs are found, and how to get the rest."""

from __future__ import annotations

import importlib.metadata
import os
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from backbones import SPECS
from backbones.preprocessing.picture_files import counted
from backbones.preprocessing.transforms import is_readable
from harness.cli.options import with_options
from harness.cli.terminal import output_console
from harness.planning.request import Places, option
from harness.planning.run_context import find_weight_files
from harness.store import open_store
from harness.suites.locations import Locations, find_locations
from results.tables import Column, FittedTable
from tasks.base import DataError
from tasks.registry import get_task, task_names

_PACKAGES = (
    "torch",
    "timm",
    "ray",
    "optuna",
    "mlflow",
    "pandas",
    "rich",
    "scikit-learn",
    "safetensors",
    "pycocotools",
)


_SAMPLE = 200
"""Pictures of a task that are decoded unless all are: seconds, where a whole data set takes an hour."""

Row = tuple[str, str, str]
"""What was looked at, its state, and how to get what is missing."""


@dataclass(frozen=True)
class DoctorOptions:
    """How closely the data are looked at."""

    panel: ClassVar[str] = "What to check"
    all_images: bool = option(
        False,
        "--all-images",
        help=f"Decode every picture of the given data, not only {_SAMPLE} of each task.",
    )


@with_options(Places, DoctorOptions)
def doctor(places: Places, options: DoctorOptions) -> None:
    """Check this machine: packages, devices, data, weights and the store; say how to get what is missing."""
    found = find_locations(places.data, places.weights, places.store, places.config)
    table = FittedTable([Column(name) for name in ("what", "state", "how to get it")], "harness doctor")
    count = None if options.all_images else _SAMPLE
    for row in (*_packages(), *_devices(), *_data(found, count), *_weights(found), _store(found)):
        table.add(*row)
    output_console().print(table)


def _packages() -> list[Row]:
    rows = []
    for name in _PACKAGES:
        try:
            rows.append((name, importlib.metadata.version(name), ""))
        except importlib.metadata.PackageNotFoundError:
            note = "only --scheduler ray needs it" if name == "ray" else ""
            rows.append((name, "missing", f"pip install {name} {note}".strip()))
    return rows


def _devices() -> list[Row]:
    import torch

    rows = [("CPU cores", str(os.cpu_count()), "")]
    if not torch.cuda.is_available():
        rows.append(
            ("GPU", "none seen by torch", "optional; needs an NVIDIA driver and a CUDA build of torch")
        )
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        rows.append((f"GPU {index}", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB", ""))
    return rows


def _data(places: Locations, count: int | None) -> list[Row]:
    """A row per task; `count` of its pictures are decoded, or all."""
    rows = []
    for name in task_names():
        task_class = get_task(name)
        where = task_class.data_name
        if where is not None and where not in places.data:
            rows.append(
                (f"data {name}", "not given", f"--data {where}=DIR, or HARNESS_DATA_{where.upper()}=DIR")
            )
            continue
        try:
            task = task_class(places.data.get(where or ""))
            facts = task.facts("report")
            decoded, broken = _decoded(task.picture_files(), count)
            state = "; ".join((f"{facts.sample_count} images to report on", *decoded))
            rows.append((f"data {name}", state, "; ".join((*broken, *facts.notes))))
        except DataError as error:
            rows.append((f"data {name}", "not usable", str(error)))
    return rows


def _decoded(files: Mapping[str, Path], count: int | None) -> tuple[list[str], list[str]]:
    """Decode `count` of the pictures, always the same, or all: how many were, and which do not decode."""
    if not files:
        return [], []
    drawn = count is not None and count < len(files)
    names = sorted(random.Random(0).sample(sorted(files), count) if drawn and count else files)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        good = list(pool.map(is_readable, (files[name] for name in names)))
    broken = [name for name, is_good in zip(names, good, strict=True) if not is_good]
    some = f"{len(names)} of {len(files)} pictures decoded, all with --all-images"
    said = some if drawn else f"all {len(files)} pictures decoded"
    return [said], [counted("pictures that do not decode", broken)] if broken else []


def _weights(places: Locations) -> list[Row]:
    rows = []
    for name, spec in SPECS.items():
        files = find_weight_files([name], places, download=False)
        if spec.shipped_weights:
            state = f"shipped ({spec.shipped_weights})"
        elif name in files.found:
            state = "; ".join((str(files.found[name]), *files.notes))
        else:
            state = "not usable" if name in places.weights else "not local"
        rows.append((f"weights {name}", state, files.missing.get(name, "")))
    return rows


def _store(places: Locations) -> Row:
    if not open_store(places.store).is_writable():
        return "store", f"{places.store} cannot be written", "--store DIR, or HARNESS_STORE=DIR"
    state = "exists" if places.store.exists() else "will be made"
    return "store", f"{places.store} ({state})", ""
