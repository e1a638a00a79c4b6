"""`harness schema`: the JSON schema of suite files, for editors."""

from __future__ import annotations

import sys

from harness.cli.options import with_options
from harness.planning.request import Rows
from harness.planning.session import load_plugins
from harness.suites.schema import suite_schema_text

EPILOG = "harness schema --plugin my_method.py > suite.schema.json"


@with_options(Rows, only=("plugins",))
def schema(rows: Rows) -> None:
    """Print the JSON schema of suite files; editors complete and check a suite with it."""
    load_plugins(rows.plugins)
    sys.stdout.write(suite_schema_text())
