"""Where and how a request is run: device, threads, GPUs and the files of the backbones' weights."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from backbones import SPECS, WeightsError, check_weights, find_weights
from backbones.names import shown
from harness.errors import Faults, UsageError
from harness.planning.gpus import sees_gpu
from harness.planning.plan import Plan
from harness.planning.request import Machine
from harness.stages.base import RunContext
from harness.stages.precision import FAST
from harness.stages.synthesize import SHARD
from harness.store import Store
from harness.suites.locations import Locations

SIZED = "auto"
"""`--gpus-per-trial auto`: every stage holds the part of a GPU that its memory is estimated to need."""
LEAST_GPUS = 0.001


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
    wrong = Faults()
    with wrong.gathered():
        gpus = gpus_of(machine)
    with wrong.gathered():
        device = device_of(machine)
    return [*faults, *(wrong or _gpu_faults(machine, device, gpus))]


def _gpu_faults(machine: Machine, device: str, gpus: float | None) -> list[str]:
    """What makes no sense of the GPUs that are asked for on a device."""
    faults = []
    if ":" in device and machine.scheduler == "ray":
        faults.append(
            f"--device {device}: Ray gives every stage its GPU; say --device cuda, or --scheduler inline"
        )
    if machine.accelerator_type and device == "cpu":
        faults.append(_without_gpu(f"--accelerator-type {machine.accelerator_type}", machine))
    if machine.accelerator_type and machine.scheduler == "inline":
        faults.append(
            f"--accelerator-type {machine.accelerator_type}: with --scheduler inline stages run here"
        )
    if machine.ship_code and (machine.scheduler != "ray" or machine.ray_address is None):
        faults.append("--ship-code: only to a Ray cluster, with --ray-address")
    if gpus is None:
        return faults
    if gpus > 1:
        faults.append(f"--gpus-per-trial {gpus:g}: a stage uses one GPU, or a part of one such as 0.5")
    elif gpus and device == "cpu":
        faults.append(_without_gpu(f"--gpus-per-trial {machine.gpus_per_trial}", machine))
    elif not gpus and device != "cpu":
        on = "cuda" if device == "auto" else device
        faults.append(f"--gpus-per-trial 0: a stage on {on} needs one GPU, or a part of one such as 0.5")
    return faults


def precision_faults(precision: str, machine: Machine) -> list[str]:
    """The fault of a precision that the device does not have."""
    with contextlib.suppress(UsageError):  # which `machine_faults` reports
        if precision == FAST and device_of(machine) == "cpu":
            return [f"precision fast: for GPUs only; on --device {machine.device} (cpu) every run is exact"]
    return []


def _without_gpu(option: str, machine: Machine) -> str:
    return f"{option}: no stage uses a GPU on --device {machine.device} (cpu)"


def gpus_of(machine: Machine) -> float | None:
    """GPUs per stage, 1 at most for `auto`; None where none are given. Raises UsageError for no number."""
    asked = machine.gpus_per_trial
    if asked is None:
        return None
    if asked == SIZED:
        return 1.0
    try:
        gpus = float(asked)
    except ValueError:
        raise UsageError(f"--gpus-per-trial {shown(asked)}: a number of GPUs, or {SIZED}") from None
    if not 0 <= gpus < math.inf:
        raise UsageError(f"--gpus-per-trial {gpus:g}: at least 0")
    if 0 < gpus < LEAST_GPUS:
        raise UsageError(f"--gpus-per-trial {gpus:g}: at least {LEAST_GPUS:g}, the smallest part Ray knows")
    return gpus


def device_of(machine: Machine) -> str:
    """The torch device of a machine's stages; raises UsageError where it cannot be used.

    `auto` stays as it is where a scheduler has to say what its workers have: always on a cluster, whose head
    may have no GPU, and with Ray on this machine where torch sees a GPU.
    """
    wanted, on_cluster = machine.device, machine.scheduler == "ray" and machine.ray_address is not None
    if wanted == "cpu":
        return wanted
    if wanted != "auto" and not re.fullmatch("cuda(:[0-9]{1,4})?", wanted):
        raise UsageError(f"--device {shown(wanted)}: one of auto, cpu, cuda, cuda:N")
    if on_cluster:
        needs_gpus = machine.gpus_per_trial is not None or machine.accelerator_type
        return "cuda" if wanted == "auto" and needs_gpus else wanted
    if wanted == "auto":
        found = device_here()
        return "auto" if found == "cuda" and machine.scheduler == "ray" else found
    import torch

    if not torch.cuda.is_available():
        raise UsageError(f"--device {shown(wanted)}: torch sees no GPU here; `harness doctor` tells more")
    number, count = int(wanted.partition(":")[2] or 0), torch.cuda.device_count()
    if number >= count:
        raise UsageError(f"--device {wanted}: torch sees {count} here, the last is cuda:{count - 1}")
    return wanted


def device_here() -> str:
    """`cuda` where torch sees a GPU in this process, else `cpu`."""
    return "cuda" if sees_gpu() else "cpu"


def run_context(
    machine: Machine, places: Locations, weights: WeightFiles, plugins: tuple[Path, ...]
) -> RunContext:
    """The context of a request; without a number of threads it has one per stage until a plan is known."""
    device, gpus = device_of(machine), gpus_of(machine)
    return RunContext(
        store=places.store,
        weights=weights.found,
        data=places.data,
        plugins=plugins,
        device=device,
        threads=machine.cpus_per_trial or 1,
        gpus_per_trial=gpus if gpus is not None else float(device != "cpu"),
        gpus_by_memory=machine.gpus_per_trial == SIZED,
        accelerator=machine.accelerator_type or "",
        ship_code=machine.ship_code,
        batch_size=machine.batch_size,
        stage_timeout=machine.stage_timeout,
    )


def with_threads(context: RunContext, plan: Plan, store: Store, machine: Machine) -> RunContext:
    """The context with threads that fit; a cluster's are left to the scheduler, which knows its nodes."""
    if machine.cpus_per_trial is not None:
        return context
    threads, on_cluster = threads_for(plan, store, context), machine.ray_address is not None
    at_once = _front(plan, store) if on_cluster else 0
    return dataclasses.replace(context, threads=threads, at_once=at_once)


def threads_for(plan: Plan, store: Store, context: RunContext) -> int:
    """Threads per stage so that the stages that can run at once fill the cores.

    As many can as are missing and wait for no other one but a reference, and as the GPUs have room for.
    """
    at_once = min(cores(), _front(plan, store), _room_on_gpus(context))
    return max(1, cores() // max(1, at_once))


def _front(plan: Plan, store: Store) -> int:
    """How many stages are missing and wait for none other but a reference; a set is as many as its shards."""

    def is_there(key: str) -> bool:
        return store.place(key).exists()

    paths = [(*trial.making, trial.evaluation) for trial in plan.trials if trial.making]
    front = {next((key for key in keys if not is_there(key)), "") for keys in paths} - {""}
    parents = [plan.stages[key].parents.items() if key in plan.stages else () for key in front]
    shards = [
        [key for role, key in roles if role.startswith(SHARD) and not is_there(key)] for roles in parents
    ]
    return sum(max(1, len(missing)) for missing in shards)


def _room_on_gpus(context: RunContext) -> int:
    """How many stages this machine's GPUs take at once; no bound where stages use none."""
    if context.device == "cpu":
        return sys.maxsize
    import torch

    count = 1 if ":" in context.device else torch.cuda.device_count()
    return count * int(1 / context.gpus_per_trial + 1e-9) if context.gpus_per_trial else count


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
