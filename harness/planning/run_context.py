"""From a suite, locations and a machine to the context that stages run in: weights, device, threads.

Nothing here enters a content key but the SHA-256 of the weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backbones.loading import WeightsError, find_weights, sha256_of_file
from backbones.registry import SPECS
from harness.planning.request import Machine
from harness.stages.base import RunContext
from harness.suites.locations import Locations

UNKNOWN = "unknown"
"""Stands for the hash of weights that are not here, where a plan is only to be looked at."""


@dataclass(frozen=True)
class Weights:
    """The weight files of a suite's backbones."""

    paths: Mapping[str, Path]
    """Backbone -> file."""
    sha256: Mapping[str, str]
    """Backbone -> hash of the file."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Backbone -> the sentence that says why its weights are not here."""


def weights_of(backbones: Sequence[str], locations: Locations, *, download: bool = True) -> Weights:
    """Find and hash the weights of known backbones; `download` asks the hub for what is not local."""
    paths: dict[str, Path] = {}
    faults: dict[str, str] = {}
    for name in (name for name in backbones if name in SPECS):
        given = locations.weights.get(name)
        try:
            paths[name] = find_weights(SPECS[name], given, locations.weights_dir, download=download)
        except WeightsError as error:
            faults[name] = str(error)
    return Weights(paths, {name: sha256_of_file(path) for name, path in paths.items()}, faults)


def run_context(
    locations: Locations, machine: Machine, weights: Weights, plugins: tuple[Path, ...]
) -> tuple[RunContext, list[str]]:
    """Where and how stages run, and what is wrong with the request for a device."""
    device, faults = _device(machine.device)
    wanted = machine.gpus_per_trial
    if wanted is not None and wanted < 0:
        faults.append(f"--gpus-per-trial {wanted:g}: at least 0")
    context = RunContext(
        store=locations.store,
        weights=weights.paths,
        data=locations.data,
        plugins=plugins,
        device=device,
        threads=machine.cpus_per_trial or 1,
        gpus_per_trial=wanted if wanted is not None else float(device.startswith("cuda")),
        batch_size=machine.batch_size,
    )
    return context, faults


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(wanted: str) -> tuple[str, list[str]]:
    """The device by its torch name, and what is wrong with the wish."""
    if wanted == "cpu":
        return wanted, []
    if wanted != "auto" and wanted != "cuda" and not wanted.startswith("cuda:"):
        return "cpu", [f"--device {wanted}: one of auto, cpu, cuda, cuda:N"]
    import torch

    if torch.cuda.is_available():
        return ("cuda" if wanted == "auto" else wanted), []
    if wanted == "auto":
        return "cpu", []
    return "cpu", [f"--device {wanted}: torch sees no GPU here; `harness doctor` tells more"]
