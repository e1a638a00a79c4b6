"""`harness list`: the suites, methods, engines, backbones and tasks there are."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from harness.cli import catalogue
from harness.cli.options import with_options
from harness.cli.terminal import output_console
from harness.errors import UsageError
from harness.planning.request import Rows, option
from harness.planning.session import load_plugins

if TYPE_CHECKING:
    from rich.console import Console


class Kind(str, Enum):
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
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(*("" if value is None else _escape(str(value)) for value in row.values()))
    output_console().print(table)


def _print_details(rows: list[catalogue.Row]) -> None:
    console = output_console()
    for row in rows:
        console.print(f"[bold]{_escape(str(row['name']))}[/bold]")
        for key, value in row.items():
            if key != "name":
                _print_value(console, key, value)
        console.print()


def _print_value(console: Console, key: str, value: Any) -> None:
    """One labelled value; lists and mappings get a line per entry."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        console.print(f"  {key}:")
        for entry in value:
            budgets = "".join(f", {name} {v}" for name, v in entry["budgets"].items())
            allowed, about = _escape(str(entry["allowed"])), _escape(entry["help"])
            default = f"{entry['field']} = {entry['default']}{budgets}"
            console.print(f"    {default}  [dim]({allowed})[/dim]  {about}")
    elif isinstance(value, list):
        console.print(f"  {key}:{'' if value else ' none'}")
        for entry in value:
            console.print(f"    - {_escape(str(entry))}")
    elif isinstance(value, dict):
        console.print(f"  {key}:{'' if value else ' none'}")
        for name, entry in value.items():
            console.print(f"    {_escape(str(name))}: {_escape(str(entry))}")
    else:
        console.print(f"  {key}: {_escape(str(value))}")


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
