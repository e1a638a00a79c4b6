"""Changes that a request makes to a suite: rows, budget, scope, precision, settings. Each gives a new draft.

What cannot be read becomes a fault of the draft. Whether the changed suite makes sense is up to `checks`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

from backbones.names import escaped, shown
from harness.suites.draft import Draft
from harness.suites.loading import TunedFile
from harness.suites.suite import ANCHORS, RECOMMENDED, RECOMMENDED_FOUND, VERDICT, Overrides, merged
from methods.bits import Bits
from tasks.registry import get_task, task_names

_LONGEST_VERDICT = 400


def without_labels(draft: Draft, data: Container[str]) -> Draft:
    """The suite on unlabelled images, where its task has such a stand-in and the user has only its data."""
    task = draft.suite.task
    fallback = get_task(task).unlabelled_fallback if task in task_names() else None
    if fallback is None or fallback not in data or task in data:
        return draft
    note = f"no data for the task {task}: rows are ranked by agreement with the teacher"
    return dataclasses.replace(draft.changed({}, task=fallback), notes=(*draft.notes, note))


def with_budget(draft: Draft, budget: str | None) -> Draft:
    """The suite under another budget, None for its own.

    A suite's overrides belong to its own budget: under another one they would make its name a lie.
    """
    if budget in (None, draft.suite.budget):
        return draft
    return draft.changed({"budget": "--budget"}, budget=budget, overrides={})


def with_scope(draft: Draft, scope: str | None) -> Draft:
    """The suite with another part of each model quantized, None for what it says itself."""
    return draft if scope is None else draft.changed({"scope": "--scope"}, scope=scope)


def with_precision(draft: Draft, precision: str | None) -> Draft:
    """The suite computed with another precision, None for what it says itself."""
    if precision is None:
        return draft
    return draft.changed({"precision": "--precision"}, precision=precision)


def with_oracle(draft: Draft, oracle: bool) -> Draft:
    """The suite with every epoch scored on the report split, where that is asked for."""
    return draft.changed({"oracle": "--oracle"}, oracle=True) if oracle else draft


def narrowed(draft: Draft, choices: Mapping[str, Sequence[str]]) -> Draft:
    """The suite with only the chosen values: field -> words as typed, none to leave the field as it is.

    The words need not be in the suite's own list. Variants of methods that are not chosen are dropped.
    """
    before = draft.suite
    for field, words in choices.items():
        if words:
            draft = _chosen(draft, field, words)
    gone = {name: set(getattr(before, name)) - set(getattr(draft.suite, name)) for name in choices}
    left_out = {name: tuple(sorted(map(str, values))) for name, values in gone.items() if values}
    kept = {name: rows for name, rows in draft.suite.variants.items() if name not in gone.get("methods", ())}
    return draft.changed({}, variants=kept, left_out=left_out)


def with_tuned(draft: Draft, file: TunedFile) -> Draft:
    """The suite with the settings that a search found, and how it found them."""
    changed = _overridden(draft, file.overrides, file.origin).faulty(file.faults)
    changed = changed.changed({}, tuned={**draft.suite.tuned, **file.tuned})
    return dataclasses.replace(changed, notes=(*changed.notes, *_doubts(file)))


def _doubts(file: TunedFile) -> Iterator[str]:
    """A sentence for each method whose settings were not measured to be better than its defaults."""
    for method, facts in file.tuned.items():
        if VERDICT not in facts:
            yield f"{file.origin}: no verdict: {shown(method)} was not compared with its defaults to the end"
        elif facts.get(RECOMMENDED) != RECOMMENDED_FOUND:
            said = facts[VERDICT]
            verdict = escaped(said[:_LONGEST_VERDICT]) if isinstance(said, str) else shown(said)
            yield f"{file.origin}: {shown(method)}: {verdict}"


def with_assignments(draft: Draft, assignments: Sequence[str]) -> Draft:
    """The suite with `--set` on top, such as `method.field=value` or `method.engine.field=value`."""
    for text in assignments:
        path, separator, value = text.partition("=")
        parts = path.strip().split(".")
        if not separator or len(parts) not in (2, 3) or not all(parts):
            forms = "method.field=value, engine.field=value or method.engine.field=value"
            draft = draft.faulty([f"--set {shown(text)}: write {forms}"])
            continue
        change: dict[str, Any] = {parts[-1]: value.strip()}
        if len(parts) == 3:
            change = {parts[1]: change}
        draft = _overridden(draft, {parts[0]: change}, "--set")
    return draft


def _chosen(draft: Draft, field: str, words: Sequence[str]) -> Draft:
    parse = _PARSERS.get(field, str)
    values, faults = [], []
    for word in words:
        try:
            values.append(parse(word))
        except ValueError as error:
            faults.append(f"--{field}: {error}")
    if faults:
        return draft.faulty(faults, [field])
    rows = tuple(value for value in values if field != "methods" or value not in ANCHORS)
    return draft.changed({field: f"--{field}"}, **{field: rows})


def _whole_number(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"'{shown(word)}' is not a whole number") from None


_PARSERS: Mapping[str, Callable[[str], Any]] = {"bits": Bits.parse, "seeds": _whole_number}


def _overridden(draft: Draft, overrides: Overrides, origin: str) -> Draft:
    before = draft.suite.overrides
    changed = {name: merged(before.get(name, {}), fields) for name, fields in overrides.items()}
    origins = _origins("overrides", overrides, before, origin)
    return draft.changed(origins, overrides={**before, **changed})


def _origins(path: str, new: Mapping[str, Any], before: Mapping[str, Any], origin: str) -> dict[str, str]:
    """The origin of every entry of nested settings, but for those mappings that were there before."""
    found = {}
    for name, value in new.items():
        inside = before.get(name)
        if not isinstance(inside, Mapping) or not isinstance(value, Mapping):
            found[f"{path}.{name}"] = origin
            inside = {}
        if isinstance(value, Mapping):
            found |= _origins(f"{path}.{name}", value, inside, origin)
    return found
