"""From what the user typed to a plan: the part that all verbs share."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.planning.expansion import StageBuilder, build_plan
from harness.planning.plan import Plan
from harness.planning.request import Request
from harness.stages.base import RunContext
from harness.store import Store, open_store
from harness.suites.locations import Locations, find_locations
from harness.suites.suite import Suite, load_suite, narrowed, with_overrides, with_tuned_file
from methods.bits import Bits
from tasks.registry import get_task


@dataclass(frozen=True)
class Session:
    """A checked request: its suite, context, plan and store."""

    suite: Suite
    context: RunContext
    plan: Plan
    store: Store
    notes: tuple[str, ...] = field(default=())
    """What the user should know about how the request was understood."""


def open_session(request: Request) -> Session:
    """Check everything that can be checked before work starts; raises UsageError with all faults."""
    plugins = load_plugins(request.rows.plugins)
    places = find_locations(
        request.places.data, request.places.weights, request.places.store, request.places.config
    )
    suite, notes = _suite_for(request, set(places.data))
    context, hashes = _context(request, suite, places, plugins)
    session = session_of(suite, context, hashes, tuple(notes))
    if request.machine.cpus_per_trial is None:
        context = dataclasses.replace(context, threads=_threads_for(session.plan))
    return dataclasses.replace(session, context=context)


def session_of(
    suite: Suite, context: RunContext, hashes: Mapping[str, str], notes: tuple[str, ...] = ()
) -> Session:
    """The session of a checked suite; `hashes` holds that of every backbone's weights. Raises UsageError."""
    from tasks.base import DataError

    try:
        plan = build_plan(suite, context, hashes)
    except DataError as error:
        raise UsageError(str(error)) from None
    return Session(suite, context, plan, open_store(context.store), notes)


def open_workbench(request: Request) -> tuple[StageBuilder, RunContext]:
    """A stage builder without a plan: for the request's suite, or where it names none for its one backbone.

    Raises UsageError with all faults.
    """
    plugins = load_plugins(request.rows.plugins)
    places = find_locations(
        request.places.data, request.places.weights, request.places.store, request.places.config
    )
    suite, _ = _suite_for(request, set(places.data))
    context, hashes = _context(request, suite, places, plugins)
    if request.machine.cpus_per_trial is None:
        context = dataclasses.replace(context, threads=cores())
    return StageBuilder(suite, context, hashes), context


def _context(
    request: Request, suite: Suite, places: Locations, plugins: tuple[Path, ...]
) -> tuple[RunContext, dict[str, str]]:
    """Where the request runs, and the hash of every backbone's weights."""
    weights, hashes = _weights_of(suite, places.weights, places.weights_dir)
    device = _device(request.machine.device)
    context = RunContext(
        store=places.store,
        weights=weights,
        data=places.data,
        plugins=plugins,
        device=device,
        threads=request.machine.cpus_per_trial or 1,
        gpus_per_trial=_gpus(request.machine.gpus_per_trial, device),
        batch_size=request.machine.batch_size,
    )
    return context, hashes


def _suite_for(request: Request, data: set[str]) -> tuple[Suite, list[str]]:
    """The suite under the request's choices; without its labelled data a task may fall back to another."""
    notes = []
    suite = load_suite(request.rows.suite) if request.rows.suite else _workbench(request.rows.backbones[0])
    fallback = get_task(suite.task).unlabelled_fallback
    if fallback in data and suite.task not in data:
        notes.append(f"no data for the task {suite.task}: rows are ranked by agreement with the teacher")
        suite = dataclasses.replace(suite, task=fallback)
    suite = dataclasses.replace(_chosen(suite, request), oracle=suite.oracle or request.rows.oracle)
    for file in request.rows.set_files:
        suite = with_tuned_file(suite, file)
    return with_overrides(suite, request.rows.assignments), notes


def _workbench(backbone: str) -> Suite:
    """A suite without methods or bits, to be filled with what a request chooses."""
    from backbones import SPECS

    task = SPECS[backbone].dataset if backbone in SPECS else "digits"
    return Suite(name="workbench", task=task, backbones=(backbone,), bits=(), methods=())


def _chosen(suite: Suite, request: Request) -> Suite:
    """The suite narrowed to the request's methods, backbones, bits, seeds, engines, scope and budget.

    A suite's overrides belong to its own budget: under another one they would make its name a lie.
    """
    if request.rows.budget not in (None, suite.budget):
        suite = dataclasses.replace(suite, budget=request.rows.budget, overrides={})
    if request.rows.scope is not None:
        suite = dataclasses.replace(suite, scope=request.rows.scope)
    return narrowed(
        suite,
        {
            "methods": request.rows.methods,
            "backbones": request.rows.backbones,
            "bits": _parsed(request.rows.bits, Bits.parse, "--bits"),
            "seeds": _parsed(request.rows.seeds, int, "--seeds"),
            "engines": request.rows.engines,
        },
    )


def _parsed(texts: Sequence[str], parse: Callable[[str], Any], option: str) -> list[Any]:
    values, faults = [], []
    for text in texts:
        try:
            values.append(parse(text))
        except ValueError as error:
            faults.append(
                f"{option}: '{text}' is not a whole number" if parse is int else f"{option}: {error}"
            )
    if faults:
        raise UsageError.of(faults)
    return values


def _weights_of(
    suite: Suite, given: Mapping[str, Path], folder: Path | None
) -> tuple[dict[str, Path], dict[str, str]]:
    from backbones import SPECS, WeightsError, find_weights, sha256_of_file

    paths, faults = {}, []
    for name in suite.backbones:
        try:
            paths[name] = find_weights(SPECS[name], given.get(name), folder)
        except WeightsError as error:
            faults.append(str(error))
    if faults:
        raise UsageError.of(faults)
    return paths, {name: sha256_of_file(path) for name, path in paths.items()}


def load_plugins(files: Sequence[str]) -> tuple[Path, ...]:
    """Register installed plug-ins and the given files; raises UsageError with every broken one."""
    from methods.registry import BrokenPlugin, load_entry_points, load_plugin, plugin_files

    load_entry_points()
    faults = []
    for file in files:
        try:
            load_plugin(Path(file))
        except BrokenPlugin as error:
            faults.append(str(error))
    if faults:
        raise UsageError.of(faults)
    return plugin_files()


def _device(wanted: str) -> str:
    if wanted == "cpu":
        return wanted
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not wanted.startswith("cuda"):
        raise UsageError(f"--device {wanted}: one of auto, cpu, cuda, cuda:N")
    if not torch.cuda.is_available():
        raise UsageError(f"--device {wanted}: torch sees no GPU here; `harness doctor` tells more")
    return wanted


def _gpus(wanted: float | None, device: str) -> float:
    if wanted is not None:
        if wanted < 0:
            raise UsageError(f"--gpus-per-trial {wanted:g}: at least 0")
        return wanted
    return 1.0 if device.startswith("cuda") else 0.0


def _threads_for(plan: Plan) -> int:
    """Threads per stage so that the widest front of independent trials fills the cores once."""
    width = len({trial.synthesis or trial.quantization for trial in plan.trials if trial.quantization})
    return max(1, cores() // max(1, min(cores(), width)))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
