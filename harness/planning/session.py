"""From what the user asked for to a plan: the part that all verbs share.

    locations -> loading -> changes -> checks -> run context -> plan

Each step adds what it finds wrong to one list, so that every fault of a request is reported together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from backbones import SPECS, sha256_of_weights
from backbones.plugins import has_entry_points
from harness.errors import Faults, UsageError
from harness.planning.expansion import build_plan
from harness.planning.plan import Plan
from harness.planning.request import Request, Rows
from harness.planning.run_context import (
    WeightFiles,
    cores,
    find_weight_files,
    machine_faults,
    precision_faults,
    run_context,
    with_threads,
)
from harness.planning.stage_builder import StageBuilder
from harness.planning.task_facts import TaskFacts
from harness.stages.base import RunContext
from harness.stages.data_guard import no_data
from harness.store import Store, open_store
from harness.suites import changes
from harness.suites.draft import Draft
from harness.suites.loading import read_suite, read_tuned, unreadable
from harness.suites.locations import Locations, read_locations
from harness.suites.suite import Suite
from methods.registry import (
    ENTRY_POINT_GROUP,
    BrokenPlugin,
    load_entry_points,
    load_plugin,
    plugin_files,
)
from tasks.base import DataError
from tasks.registry import task_names


@dataclass(frozen=True)
class Session:
    """A checked request: its suite, context, plan and store."""

    suite: Suite
    context: RunContext
    plan: Plan
    store: Store
    notes: tuple[str, ...] = field(default=())
    """What the user should know about how the request was understood."""


@dataclass(frozen=True)
class _Checked:
    """A request without faults, before it is planned."""

    suite: Suite
    context: RunContext
    weights_sha256: Mapping[str, str]
    facts: TaskFacts
    notes: tuple[str, ...]


def open_session(request: Request) -> Session:
    """The plan of a request that can be run; raises UsageError with every fault."""
    return _planned(request, _checked(request, needs_data=True))


def open_outline(request: Request) -> Session:
    """The plan of a request, to be looked at: weights and data may be missing, and no hub is asked.

    The notes say what is missing; keys that depend on it are not final. Raises UsageError with every fault.
    """
    return _planned(request, _checked(request, needs_data=True, outline=True))


class Workbench(NamedTuple):
    """A checked request without a plan."""

    builder: StageBuilder
    context: RunContext
    notes: tuple[str, ...]
    """What the user should know about how the request was understood."""


def open_workbench(request: Request) -> Workbench:
    """A stage builder without a plan: for the request's suite, or where it names none for its one backbone.

    Raises UsageError with every fault.
    """
    checked = _checked(request)
    context = checked.context
    if request.machine.cpus_per_trial is None:
        context = dataclasses.replace(context, threads=cores())
    return Workbench(
        StageBuilder(checked.suite, checked.weights_sha256, checked.facts), context, checked.notes
    )


def session_of(
    suite: Suite,
    context: RunContext,
    hashes: Mapping[str, str],
    notes: tuple[str, ...] = (),
    facts: TaskFacts | None = None,
) -> Session:
    """The session of a checked suite; `hashes` holds that of every backbone's weights. Raises UsageError."""
    try:
        plan = build_plan(suite, context, hashes, facts)
    except DataError as error:
        raise UsageError(str(error)) from None
    return Session(suite, context, plan, open_store(context.store), notes)


def load_plugins(files: Sequence[str]) -> None:
    """Register installed plug-ins and the given files; raises UsageError with every broken one."""
    load_entry_points()
    faults = Faults()
    for file in files:
        try:
            load_plugin(Path(file))
        except BrokenPlugin as error:
            faults.append(str(error))
    faults.raise_any()


def load_plugins_of(request: Request) -> None:
    """Register a request's plug-ins with its data out of their reach; raises UsageError as `load_plugins`.

    Where there are none nobody has to be watched, and torch is not loaded for it.
    """
    if not request.rows.plugins and not has_entry_points(ENTRY_POINT_GROUP):
        return
    places, _ = _places_of(request)
    with no_data(RunContext(places.store, data=places.data), programs=True):
        load_plugins(request.rows.plugins)


def _places_of(request: Request) -> tuple[Locations, list[str]]:
    asked = request.places
    return read_locations(asked.data, asked.weights, asked.store, asked.config)


def _planned(request: Request, checked: _Checked) -> Session:
    session = session_of(checked.suite, checked.context, checked.weights_sha256, checked.notes, checked.facts)
    context = with_threads(session.context, session.plan, session.store, request.machine)
    return dataclasses.replace(session, context=context)


def _checked(request: Request, *, needs_data: bool = False, outline: bool = False) -> _Checked:
    """Everything that can be known before stages are made; raises UsageError with every fault."""
    faults = Faults()
    with faults.gathered():
        load_plugins_of(request)
    places, misplaced = _places_of(request)
    draft = _draft_of(request.rows, places)
    suite = draft.suite
    faults += [*misplaced, *draft.all_faults(), *machine_faults(request.machine)]
    faults += precision_faults(suite.precision, request.machine)
    facts = TaskFacts.of(suite.task, places.data, outline=outline) if suite.task in task_names() else None
    if needs_data and facts is not None and not misplaced:
        faults += _data_faults(facts)
    weights = find_weight_files(suite.backbones, places, download=not faults and not outline)
    faults += _weight_faults(weights, places, everywhere=not faults and not outline)
    faults.raise_any()
    assert facts is not None  # an unknown task is a fault
    hashes = {name: sha256_of_weights(name, path) for name, path in weights.found.items()}
    return _Checked(
        suite,
        run_context(request.machine, places, weights, plugin_files()),
        {**hashes, **dict.fromkeys(weights.missing, "not found")},
        facts,
        (
            *draft.notes,
            *weights.notes,
            *(facts("report").notes if needs_data else ()),
            *_missing_notes(weights.missing, facts),
        ),
    )


def _draft_of(rows: Rows, places: Locations) -> Draft:
    """The suite that a request names, under its changes, with every fault of both."""
    if not rows.suite and not rows.backbones:
        return unreadable("nothing", ["nothing to run: give --suite NAME or --backbone NAME"])
    draft = read_suite(rows.suite) if rows.suite else _workbench(rows.backbones[0])
    draft = changes.without_labels(draft, places.data)
    draft = changes.with_budget(draft, rows.budget)
    draft = changes.with_scope(draft, rows.scope)
    draft = changes.with_precision(draft, rows.precision)
    chosen = ("methods", "backbones", "bits", "seeds", "engines")
    draft = changes.narrowed(draft, {name: getattr(rows, name) for name in chosen})
    draft = changes.with_oracle(draft, rows.oracle)
    for file in rows.set_files:
        draft = changes.with_tuned(draft, read_tuned(file))
    return changes.with_assignments(draft, rows.assignments)


def _workbench(backbone: str) -> Draft:
    """A suite without methods or bits, to be filled with what a request chooses."""
    task = SPECS[backbone].dataset if backbone in SPECS else "digits"
    origins = {name: f"--{name}" for name in ("backbones", "bits", "methods", "engines")}
    return Draft(Suite(name="workbench", task=task, backbones=(backbone,), bits=(), methods=()), origins)


def _data_faults(facts: TaskFacts) -> list[str]:
    try:
        facts("report")
    except DataError as error:
        return [str(error)]
    return []


def _weight_faults(weights: WeightFiles, places: Locations, *, everywhere: bool) -> list[str]:
    """Missing weights that are a fault: where no hub was asked only those at a place the user gave."""
    return [said for name, said in weights.missing.items() if everywhere or name in places.weights]


def _missing_notes(weights: Iterable[str], facts: TaskFacts) -> list[str]:
    """What an outline could not find."""
    missing = [f"weights of {name}" for name in weights]
    if facts.missing:
        missing.append(f"data of the task {facts.task_class.name}")
    return [f"{what} not found: keys not final" for what in missing]
