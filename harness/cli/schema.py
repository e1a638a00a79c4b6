"""`harness schema`: the JSON schema of suite files, for editors."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from harness.planning.session import load_plugins
from harness.suites.schema import suite_schema_text

EPILOG = "harness schema --plugin my_method.py > suite.schema.json"


PluginOption = Annotated[
    list[str] | None,
    typer.Option(help="A Python file with a method or an engine of your own, to be in the schema too."),
]


def schema(plugin: PluginOption = None) -> None:
    """Print the JSON schema of suite files; editors complete and check a suite with it."""
    load_plugins(plugin or [])
    sys.stdout.write(suite_schema_text())
