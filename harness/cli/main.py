"""The `harness` command: its verbs and its exit statuses.

0    every trial has a result
1    some trial failed; the others finished and the table shows why
2    wrong usage, named precisely
3    cut short: what its stages ran on was lost; the same command goes on
130  stopped with Ctrl-C
"""

from __future__ import annotations

import platform
import shutil
import sys
from importlib import metadata

import typer

from harness.cli import (
    analyze,
    bundle,
    compare,
    doctor,
    leaderboard,
    listing,
    plan,
    report,
    run,
    schema,
    store,
    synthesize,
    tune,
    ui,
    verify,
)
from harness.cli.streams import never_fail_to_encode
from harness.errors import HarnessError, printable

_PANELS_NEED = 80
"""Columns below which Typer's panels crop the names of options; plain help wraps instead."""

app = typer.Typer(
    name="harness",
    help="Compare data-free quantization methods for Vision Transformers, fairly.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if shutil.get_terminal_size().columns >= _PANELS_NEED else None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        versions = f"Python {platform.python_version()}, torch {_version('torch')}"
        typer.echo(f"harness {_version('dfq-harness')} ({versions})")
        raise typer.Exit


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


@app.callback()
def _harness(
    version: bool = typer.Option(
        False,
        "--version",
        help="Show the version and exit.",
        is_eager=True,
        metavar="",
        callback=_print_version,
    ),
) -> None:
    pass


app.command("run", epilog=run.EPILOG)(run.run)
app.command("tune", epilog=tune.EPILOG)(tune.tune)
app.command("plan")(plan.plan)
app.command("list")(listing.list_things)
app.command("leaderboard")(leaderboard.show_leaderboard)
app.command("report", epilog=report.EPILOG)(report.report)
app.command("compare", epilog=compare.EPILOG)(compare.compare)
app.command("synthesize", epilog=synthesize.EPILOG)(synthesize.synthesize)
app.command("analyze", epilog=analyze.EPILOG)(analyze.analyze)
app.add_typer(store.app, name="store")
app.command("bundle")(bundle.bundle)
app.command("board")(bundle.board)
app.command("verify")(verify.verify)
app.command("ui")(ui.ui)
app.command("schema", epilog=schema.EPILOG)(schema.schema)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line; wrong usage ends with status 2 and one sentence per fault."""
    never_fail_to_encode()
    try:
        app()
    except HarnessError as error:
        for line in str(error).splitlines():
            print(f"harness: {printable(line)}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a folder that is read-only, a disk that is full
        place = f"{error.filename}: " if error.filename else ""
        print(f"harness: {printable(f'{place}{error.strerror or error}')}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
