"""`harness list`: the suites, methods, engines, backbones and tasks there are."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from harness.cli import catalogue
from harness.cli.options import with_options
from harness.cli.terminal import output_console
from harness.errors import UsageError
from harness.planning.request import Rows, option
from harness.planning.session import load_plugins
from results.tables import Column, FittedTable

if TYPE_CHECKING:
    from rich.console import Console


class Kind(StrEnum):
    """What can be listed."""

    suites = "suites"
    methods = "methods"
    engines = "engines"
    backbones = "backbones"
    tasks = "tasks"


_ROWS = {
    Kind.suites: catalogue.suites,
    Kind.methods: catalogue.methods,
    Kind.engines: catalogue.engines,
    Kind.backbones: catalogue.backbones,
    Kind.tasks: catalogue.tasks,
}

_WHOLE = ("name", "reference score")
"""The columns whose cells never fold."""
_LEAST = 14
"""Characters to which a cell folds before columns leave."""
_LEAVING = {
    "transform": 3,
    "families": 3,
    "track": 3,
    "seeds": 2,
    "published rows": 2,
    "task": 1,
    "weights": 1,
}
"""The columns that a narrow terminal may lack, the least needed with the largest number."""


@dataclass(frozen=True)
class Listing:
    """How the list is shown."""

    panel: ClassVar[str] = "Output"
    format: str = option("table", "--format", "-f", help="Format: table or json.", metavar="NAME")
    verbose: bool = option(
        False, "--verbose", "-v", help="Also sources, deviations, open points and every setting."
    )


@with_options(Rows, Listing, only=("plugins", "format", "verbose"))
def list_things(
    rows: Rows,
    listing: Listing,
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
) -> None:
    """List what there is to run and what is known of it."""
    if listing.format not in ("table", "json"):
        raise UsageError(f"--format {listing.format}: one of table, json")
    load_plugins(rows.plugins)
    found = _ROWS[kind](listing.verbose)
    if listing.format == "json":
        json.dump(found, sys.stdout, indent=2, default=str)
        sys.stdout.write("\n")
    elif listing.verbose:
        _print_details(found)
    else:
        _print_table(kind.value, found)


def _print_table(title: str, rows: list[catalogue.Row]) -> None:
    columns = [
        Column(name, name in _WHOLE, least=_LEAST, leaves=_LEAVING.get(name, 0), left=name == "name")
        for name in rows[0]
    ]
    table = FittedTable(columns, title, "A wider terminal shows them, and so do --verbose and --format json.")
    for row in rows:
        table.add(*("" if value is None else str(value) for value in row.values()))
    output_console().print(table)


def _print_details(rows: list[catalogue.Row]) -> None:
    from rich.text import Text

    console = output_console()
    for row in rows:
        console.print(Text(str(row["name"]), style="bold"))
        for key, value in row.items():
            if key != "name":
                _print_value(console, key, value)
        console.print()


def _print_value(console: Console, key: str, value: Any) -> None:
    """One labelled value; lists and mappings get a line per entry."""
    if not isinstance(value, list | dict):
        _print_indented(console, 2, f"{key}: {value}")
        return
    _print_indented(console, 2, f"{key}:{'' if value else ' none'}")
    entries = [f"{name}: {entry}" for name, entry in value.items()] if isinstance(value, dict) else value
    for entry in entries:
        if isinstance(entry, dict):
            budgets = "".join(f", {name} {v}" for name, v in entry["budgets"].items())
            default = f"{entry['field']} = {entry['default']}{budgets}"
            _print_indented(console, 4, default, f"  ({entry['allowed']})", f"  {entry['help']}")
        else:
            _print_indented(console, 4, f"{'' if isinstance(value, dict) else '- '}{entry}")


def _print_indented(console: Console, blanks: int, text: str, dim: str = "", more: str = "") -> None:
    from rich.padding import Padding
    from rich.text import Text

    console.print(Padding.indent(Text.assemble(text, (dim, "dim"), more), blanks))
