"""What takes room in a store, and what of it may go: never what an unfinished run would make again.

A run is finished once all that it is run for is there. Until then two kinds of artifacts stay: those that it
is run for, and those that the missing ones are made from. A run that nobody has begun for as long as what is
to go is old counts as given up.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from harness.errors import ArtifactError
from harness.store.base import Store
from harness.store.uses import StoredPlan

DAMAGED = "damaged"
"""The kind of what cannot be read."""


@dataclass(frozen=True)
class Entry:
    """An artifact as one who makes room sees it."""

    key: str
    kind: str
    """Kind of its stage, `sample` for what stayed of a set that was dropped, or `damaged`."""
    method: str
    """What its label begins with; empty where it is damaged."""
    suites: tuple[str, ...]
    """Suites whose runs have such a stage; none where no run is known."""
    size: int
    """Bytes."""
    age: float
    """Seconds since it was written."""


@dataclass(frozen=True)
class Choice:
    """What is to go: all that fits every part that is given."""

    older_than: float = 0.0
    """Seconds."""
    suites: Collection[str] = ()
    kinds: Collection[str] = ()

    def fits(self, entry: Entry) -> bool:
        """Whether the entry is asked for; one that another suite shares is not asked for with the suite."""
        in_suites = not self.suites or (bool(entry.suites) and set(entry.suites) <= set(self.suites))
        return in_suites and entry.age >= self.older_than and (not self.kinds or entry.kind in self.kinds)


@dataclass(frozen=True)
class Pruning:
    """What goes, and what was asked for and stays."""

    gone: list[Entry] = field(default_factory=list)
    kept: list[Entry] = field(default_factory=list)
    """What a run that is not finished needs."""
    suites: tuple[str, ...] = ()
    """Suites of these runs."""


def entries_of(store: Store) -> list[Entry]:
    """All artifacts of a store."""
    suites: dict[str, set[str]] = {}
    for plan in store.plans():
        for key in plan.needs:
            suites.setdefault(key, set()).add(plan.suite)
    now = time.time()
    return [_entry(store, key, suites.get(key.partition(".")[0], set()), now) for key in store.stored_keys()]


def pruned(store: Store, choice: Choice, *, dry_run: bool = False) -> Pruning:
    """Remove what is chosen and no unfinished run needs; with `dry_run` only say so.

    Raises UsageError where somebody works with the store, unless it is a dry run.
    """
    if dry_run:
        return _sorted_out(store, choice)
    with store.alone():
        found = _sorted_out(store, choice)
        for plan in store.plans():
            if not plan.finished and _is_complete(plan, store):
                store.write_plan(replace(plan, finished=True))
        for entry in found.gone:
            store.remove(entry.key)
        return found


def needed_by(plan: StoredPlan, store: Store) -> set[str]:
    """Keys of what is there and would be made again to finish the plan; none where it is finished."""
    if plan.finished or _is_complete(plan, store):
        return set()
    there, seen = set(), set()
    open_ends = list(plan.wanted)
    while open_ends:
        key = open_ends.pop()
        if key in seen:
            continue
        seen.add(key)
        if store.place(key).exists():
            there.add(key)
        else:
            open_ends += plan.needs.get(key, ())
    return there


def _is_complete(plan: StoredPlan, store: Store) -> bool:
    return all(store.place(key).exists() for key in plan.wanted)


def _sorted_out(store: Store, choice: Choice) -> Pruning:
    chosen = [entry for entry in entries_of(store) if choice.fits(entry)]
    young = [
        p for p in store.plans() if not choice.older_than or time.time() - p.begun_at < choice.older_than
    ]
    needs = [(plan.suite, needed_by(plan, store)) for plan in young]
    needed: set[str] = set().union(*(keys for _, keys in needs))
    kept = [entry for entry in chosen if entry.key in needed]
    suites = {suite for suite, keys in needs if any(entry.key in keys for entry in kept)}
    return Pruning([entry for entry in chosen if entry.key not in needed], kept, tuple(sorted(suites)))


def total(entries: Iterable[Entry]) -> int:
    """Bytes of the entries together."""
    return sum(entry.size for entry in entries)


def _entry(store: Store, key: str, suites: Collection[str], now: float) -> Entry:
    try:
        meta = store.meta(key)
        kind, label = str(meta["kind"]), str(meta["label"])
    except (ArtifactError, KeyError):
        kind, label = DAMAGED, ""
    method = label.partition(" ")[0]
    return Entry(
        key, kind, method, tuple(sorted(suites)), store.size(key), max(0.0, now - store.made_at(key))
    )
