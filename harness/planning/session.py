"""From what a user asked for to a plan: every room passed once, every fault said together.

locations -> suite file -> changes -> checks -> weights and device -> plan
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backbones.registry import SPECS
from harness.errors import UsageError
from harness.planning.expansion import build_plan
from harness.planning.plan import Plan
from harness.planning.request import Request, Rows
from harness.planning.run_context import UNKNOWN, Weights, cores, run_context, weights_of
from harness.planning.stage_builder import StageBuilder
from harness.stages.base import RunContext
from harness.store import Store, open_store
from harness.suites import changes
from harness.suites.draft import Draft
from harness.suites.loading import read_suite, read_tuned
from harness.suites.locations import Locations, read_locations
from harness.suites.suite import Suite
from methods.registry import BrokenPlugin, load_entry_points, load_plugin, plugin_files
from tasks.base import DataError
from tasks.registry import get_task, task_names

_WORKBENCH = "workbench"
"""Name of the suite of a request that names none."""


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
    checked = _checked(request)
    session = session_of(checked.suite, checked.context, checked.weights.sha256, checked.notes)
    if request.machine.cpus_per_trial is not None:
        return session
    return dataclasses.replace(
        session, context=dataclasses.replace(session.context, threads=_threads_for(session.plan))
    )


def open_outline(request: Request) -> Session:
    """The session of a request whose weights or data need not be here: its plan is to be looked at, not run.

    The hub is not asked. Notes say what is missing; content keys are then not final. Raises UsageError with
    all other faults.
    """
    checked = _checked(request, outline=True)
    known = dict.fromkeys(checked.suite.backbones, UNKNOWN) | dict(checked.weights.sha256)
    builder = StageBuilder(checked.suite, checked.context, known, outline=True)
    plan = build_plan(builder)
    missing = [
        f"weights of {', '.join(checked.weights.faults)} are not here: content keys are not final"
        if checked.weights.faults
        else "",
        f"{builder.missing_data}: content keys are not final" if builder.missing_data else "",
    ]
    notes = (*checked.notes, *filter(None, missing))
    return Session(checked.suite, checked.context, plan, open_store(checked.context.store), notes)


def open_workbench(request: Request) -> tuple[StageBuilder, RunContext]:
    """A stage builder without a plan: for the request's suite, or where it names none for its one backbone.

    Raises UsageError with all faults.
    """
    checked = _checked(request)
    context = checked.context
    if request.machine.cpus_per_trial is None:
        context = dataclasses.replace(context, threads=cores())
    return StageBuilder(checked.suite, context, checked.weights.sha256), context


def session_of(
    suite: Suite, context: RunContext, weights_sha256: Mapping[str, str], notes: tuple[str, ...] = ()
) -> Session:
    """The session of a checked suite; `weights_sha256` holds the hash of every backbone's weights.

    Raises UsageError when the task's data cannot be used.
    """
    try:
        plan = build_plan(StageBuilder(suite, context, weights_sha256))
    except DataError as error:
        raise UsageError(str(error)) from None
    return Session(suite, context, plan, open_store(context.store), notes)


def load_plugins(files: Sequence[str]) -> tuple[Path, ...]:
    """Register installed plug-ins and the given files; raises UsageError with every broken one."""
    loaded, faults = _read_plugins(files)
    if faults:
        raise UsageError.of(faults)
    return loaded


@dataclass(frozen=True)
class _Checked:
    """A request without faults."""

    suite: Suite
    context: RunContext
    weights: Weights
    notes: tuple[str, ...]


def _checked(request: Request, *, outline: bool = False) -> _Checked:
    """What the request means; raises UsageError with everything that is wrong with it.

    In an `outline` weights may be missing.
    """
    plugins, plugin_faults = _read_plugins(request.rows.plugins)
    places = request.places
    locations, location_faults = read_locations(places.data, places.weights, places.store, places.config)
    draft = _draft(request.rows, locations)
    weights = weights_of(draft.suite.backbones, locations, download=not outline)
    context, device_faults = run_context(locations, request.machine, weights, plugins)
    faults = [*plugin_faults, *draft.all_faults(), *location_faults, *device_faults]
    if not outline:
        faults += weights.faults.values()
    if faults:
        data_faults = [] if outline else _data_faults(draft.suite, locations)
        raise UsageError.of(list(dict.fromkeys([*faults, *data_faults])))
    return _Checked(draft.suite, context, weights, draft.notes)


def _draft(rows: Rows, locations: Locations) -> Draft:
    """The suite that the request names, with its changes on top."""
    draft = read_suite(rows.suite) if rows.suite else _workbench(rows.backbones)
    draft = changes.without_labels(draft, locations.data)
    draft = changes.with_budget(draft, rows.budget)
    draft = changes.with_scope(draft, rows.scope)
    draft = changes.narrowed(
        draft,
        {
            "methods": rows.methods,
            "backbones": rows.backbones,
            "bits": rows.bits,
            "seeds": rows.seeds,
            "engines": rows.engines,
        },
    )
    draft = changes.with_oracle(draft, rows.oracle)
    for file in rows.set_files:
        draft = changes.with_tuned(draft, read_tuned(file))
    return changes.with_assignments(draft, rows.assignments)


def _workbench(backbones: Sequence[str]) -> Draft:
    """A suite without methods or bits, to be filled with what a request chooses."""
    name = backbones[0] if backbones else ""
    task = SPECS[name].dataset if name in SPECS else "digits"
    return Draft(Suite(name=_WORKBENCH, task=task, backbones=tuple(backbones[:1]), bits=(), methods=()))


def _data_faults(suite: Suite, locations: Locations) -> list[str]:
    """What is wrong with the data, said beside other faults; without any, making the plan reads the data."""
    if suite.task not in task_names():
        return []
    task = get_task(suite.task)
    try:
        task(locations.data.get(task.data_name or "")).facts("report")
    except DataError as error:
        return [str(error)]
    return []


def _read_plugins(files: Sequence[str]) -> tuple[tuple[Path, ...], list[str]]:
    load_entry_points()
    faults = []
    for file in files:
        try:
            load_plugin(Path(file))
        except BrokenPlugin as error:
            faults.append(str(error))
    return plugin_files(), faults


def _threads_for(plan: Plan) -> int:
    """Threads per stage so that the widest front of independent trials fills the cores once."""
    width = len({trial.synthesis or trial.quantization for trial in plan.trials if trial.quantization})
    return max(1, cores() // max(1, min(cores(), width)))
