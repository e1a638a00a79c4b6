"""`harness store`: what takes room in the store, whether it is whole, and making room.

harness store           a table by suite, stage and method
harness store verify    reads every artifact and names those that are damaged
harness store prune     removes what is asked for and no unfinished run needs
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import typer

from backbones.names import shown
from harness.cli.options import with_options
from harness.cli.terminal import output_console
from harness.errors import ArtifactError, Faults, UsageError
from harness.planning.request import Places, option
from harness.stages.kinds import kind_names
from harness.store import Store, open_store
from harness.store.room import Choice, Entry, entries_of, pruned, total
from harness.suites.locations import find_locations
from results.tables import Column, FittedTable

app = typer.Typer(invoke_without_command=True)

_HOUR = 3600
_UNITS = {"h": _HOUR, "d": 24 * _HOUR, "w": 7 * 24 * _HOUR}


@dataclass(frozen=True)
class Pruned:
    """What is to go; what is given together has to fit together."""

    panel: ClassVar[str] = "What to remove"
    older_than: str = option(
        "", "--older-than", help="What was made so long ago: 12h, 30d or 8w.", metavar="AGE"
    )
    suites: tuple[str, ...] = option(
        (),
        "--suite",
        "-s",
        help="What these suites need and no other does, comma-separated.",
        commas=True,
        metavar="NAMES",
    )
    kinds: tuple[str, ...] = option(
        (), "--kind", help="Stages of these kinds, comma-separated.", commas=True, metavar="NAMES"
    )
    dry_run: bool = option(False, "--dry-run", help="Only say what would go.")


@app.callback()
@with_options(Places, only=("store", "config"))
def show(places: Places, context: typer.Context) -> None:
    """Show what takes room in the store, check it (verify), or make room (prune)."""
    if context.invoked_subcommand is not None:
        if places != Places():
            raise UsageError(
                f"write --store and --config behind `harness store {context.invoked_subcommand}`"
            )
        return
    store, console = _store_of(places), output_console()
    entries = entries_of(store)
    console.print(_table(entries, str(store.root)))
    console.print(_summary(store, entries), markup=False, soft_wrap=True)


@app.command()
@with_options(Places, only=("store", "config"))
def verify(places: Places) -> None:
    """Read every artifact and compare its checksums; status 1 where some are damaged, which are named."""
    store, console = _store_of(places), output_console()
    faults = []
    keys = store.stored_keys()
    for key in keys:
        try:
            store.verify(key)
        except ArtifactError as error:
            faults.append(str(error))
    for fault in faults:
        console.print(fault, markup=False, soft_wrap=True)
    console.print(f"{len(keys) - len(faults)} of {len(keys)} artifacts are whole", markup=False)
    if faults:
        raise typer.Exit(1)


@app.command()
@with_options(Places, Pruned, only=("store", "config", "older_than", "suites", "kinds", "dry_run"))
def prune(places: Places, asked: Pruned) -> None:
    """Remove what fits all that is asked for, but nothing that an unfinished run needs."""
    store, console = _store_of(places), output_console()
    found = pruned(store, _choice(asked, store), dry_run=asked.dry_run)
    if found.gone:
        console.print(_table(found.gone, "would be removed" if asked.dry_run else "removed"))
    freed = "would be free" if asked.dry_run else "are free now"
    lines = [f"{_bytes(total(found.gone))} in {_artifacts(found.gone)} {freed}"]
    if found.kept:
        lines.append(
            f"{_artifacts(found.kept)} of {_bytes(total(found.kept))} stay: unfinished runs of "
            f"{', '.join(found.suites)} need them"
        )
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _store_of(places: Places) -> Store:
    """The store that is there; raises UsageError where none is."""
    root = find_locations(store=places.store, config=places.config).store
    if not root.is_dir():
        raise UsageError(f"no store at {root}: give --store DIR, or run a suite first")
    return open_store(root)


def _choice(asked: Pruned, store: Store) -> Choice:
    """What the options choose; raises UsageError with every fault of theirs."""
    faults = Faults()
    if not (asked.older_than or asked.suites or asked.kinds):
        faults.append("nothing to prune: give --older-than AGE, --suite NAMES or --kind NAMES")
    age = re.fullmatch(r"([0-9]{1,6})([hdw])", asked.older_than)
    if asked.older_than and not age:
        faults.append(f"--older-than {shown(asked.older_than)}: a number of h, d or w, such as 30d")
    entries = entries_of(store)
    suites = {plan.suite for plan in store.plans()}
    kinds = [*kind_names(), *sorted({entry.kind for entry in entries} - set(kind_names()))]
    for flag, given, known in (("--suite", asked.suites, sorted(suites)), ("--kind", asked.kinds, kinds)):
        said = f"one of {', '.join(known)}" if known else "no run of a suite is known on this store"
        faults += [f"{flag} {shown(name)}: {said}" for name in given if name not in known]
    faults.raise_any()
    seconds = int(age[1]) * _UNITS[age[2]] if age else 0
    return Choice(float(seconds), asked.suites, asked.kinds)


def _table(entries: Iterable[Entry], title: str) -> FittedTable:
    """Counts, bytes and ages of artifacts that are alike; of each suite the largest first."""
    numbers = (Column(name, number=True) for name in ("number", "size", "oldest", "newest"))
    table = FittedTable((Column("suite"), Column("stage"), Column("method"), *numbers), title)
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((", ".join(entry.suites) or "-", entry.kind, entry.method), []).append(entry)
    for names, group in sorted(groups.items(), key=lambda item: (item[0][0], -total(item[1]), item[0])):
        ages = [entry.age for entry in group]
        table.add(*names, str(len(group)), _bytes(total(group)), _age(max(ages)), _age(min(ages)))
    return table


def _summary(store: Store, entries: list[Entry]) -> str:
    inside = total(entries)
    rest = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file()) - inside
    return f"{_artifacts(entries)} of {_bytes(inside)}; records, pictures and studies {_bytes(rest)}"


def _artifacts(entries: list[Entry]) -> str:
    return f"{len(entries)} artifact{'s' if len(entries) != 1 else ''}"


def _bytes(size: int) -> str:
    """A size as people read it, in powers of 1000: `23.4 MB`."""
    value, unit = float(size), 0
    units = ("B", "kB", "MB", "GB", "TB")
    while value >= 999.5 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {units[unit]}" if unit == 0 or value >= 99.5 else f"{value:.1f} {units[unit]}"


def _age(seconds: float) -> str:
    """An age in whole minutes, hours, or days: `5 min`, `30 h`, `12 d`."""
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} d"
