"""Where and how a request is run: device, threads, GPUs and the files of the backbones' weights."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from backbones import SPECS, WeightsError, check_weights, find_weights
from backbones.names import shown
from harness.errors import UsageError
from harness.planning.plan import Plan
from harness.planning.request import Machine
from harness.stages.base import RunContext
from harness.suites.locations import Locations


class WeightFiles(NamedTuple):
    """The weights of a suite's backbones."""

    found: dict[str, Path]
    missing: dict[str, str]
    """Backbone -> a sentence that says how to get its weights, or why they do not load."""
    notes: tuple[str, ...] = ()
    """What was taken of files that hold more than plain weights."""


def find_weight_files(backbones: Iterable[str], places: Locations, *, download: bool) -> WeightFiles:
    """Each known backbone's weights, checked to fit it by names and shapes.

    Without `download` the hub is not asked, only what is local.
    """
    found: dict[str, Path] = {}
    missing, notes = {}, []
    for name in (name for name in backbones if name in SPECS):
        given = places.weights.get(name)
        try:
            path = find_weights(SPECS[name], given, places.weights_dir, download=download)
            if SPECS[name].shipped_weights is None:
                notes.append(check_weights(name, path))
            found[name] = path
        except WeightsError as error:
            missing[name] = str(error)
    return WeightFiles(found, missing, tuple(note for note in notes if note))


def machine_faults(machine: Machine) -> list[str]:
    """What cannot be had of the machine, a sentence per option."""
    faults = []
    for field in dataclasses.fields(machine):
        value, low = getattr(machine, field.name), field.metadata["low"]
        if value is not None and low is not None and not low <= value < math.inf:
            faults.append(f"{field.metadata['flags'][0]} {value:g}: at least {low:g}")
    try:
        device_of(machine.device)
    except UsageError as error:
        faults.append(str(error))
    return faults


def device_of(wanted: str) -> str:
    """The torch device for `auto`, `cpu`, `cuda` or `cuda:N`; raises UsageError where it cannot be used."""
    if wanted == "cpu":
        return wanted
    if wanted != "auto" and not wanted.startswith("cuda"):
        raise UsageError(f"--device {shown(wanted)}: one of auto, cpu, cuda, cuda:N")
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.cuda.is_available():
        raise UsageError(f"--device {shown(wanted)}: torch sees no GPU here; `harness doctor` tells more")
    return wanted


def run_context(
    machine: Machine, places: Locations, weights: WeightFiles, plugins: tuple[Path, ...]
) -> RunContext:
    """The context of a request; without a number of threads it has one per stage until a plan is known."""
    device = device_of(machine.device)
    gpus = machine.gpus_per_trial
    return RunContext(
        store=places.store,
        weights=weights.found,
        data=places.data,
        plugins=plugins,
        device=device,
        threads=machine.cpus_per_trial or 1,
        gpus_per_trial=gpus if gpus is not None else float(device.startswith("cuda")),
        batch_size=machine.batch_size,
        stage_timeout=machine.stage_timeout,
    )


def threads_for(plan: Plan) -> int:
    """Threads per stage so that the widest front of independent trials fills the cores once."""
    width = len({trial.images for trial in plan.trials if trial.images})
    return max(1, cores() // max(1, min(cores(), width)))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
