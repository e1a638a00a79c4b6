"""`harness compare`: two methods of a suite, or one suite in two stores, side by side."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.leaderboard import NOT_READ, records_of_suite, store_of
from harness.cli.options import with_options
from harness.cli.tracking import Tracking
from harness.errors import UsageError, printable
from harness.planning.request import Places, Request, Rows
from harness.planning.session import load_plugins_of
from harness.reporting.choosing import chosen
from results.grouping import Row, gathered
from results.report.comparing import names_in, pairs_of_methods, pairs_of_stores, text_of

EPILOG = (
    "harness compare maskaq+lsq_qat mimiq+lsq_qat --suite digits_w4a4; "
    "harness compare laptop-store cluster-store --suite digits_w4a4"
)


@with_options(Rows, Places, required=("suite",), helps=NOT_READ)
def compare(
    rows: Rows,
    places: Places,
    first: Annotated[str, typer.Argument(metavar="A", help="METHOD, METHOD+ENGINE, or a store's folder.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The same kind of thing.")],
) -> None:
    """Compare two methods of a suite, or one suite in two stores: settings, accuracy, images that flip."""
    stores = [Path(name).is_dir() for name in (first, second)]
    if any(stores) and not all(stores):
        other = second if stores[0] else first
        raise UsageError(f"{other}: is no folder, and the other is; give two stores or two methods")
    if all(stores):
        pairs = pairs_of_stores(*(_rows(rows, places, store) for store in (first, second)))
        missing = "the two stores share no row of the suite"
    else:
        found = _rows(rows, places, None)
        known = names_in(found)
        for name in (first, second):
            if not any(name.replace(" ", "") in (one, one.partition("+")[0]) for one in known):
                raise UsageError(f"{name}: no such row in suite {rows.suite}: {', '.join(known)}")
        pairs = pairs_of_methods(found, first, second)
        missing = f"{first} and {second} share no backbone, bit-width and budget in suite {rows.suite}"
    if not pairs:
        raise UsageError(missing)
    sys.stdout.write("".join(f"{printable(line)}\n" for line in text_of(pairs).splitlines()))


def _rows(rows: Rows, places: Places, store: str | None) -> list[Row]:
    places = places if store is None else dataclasses.replace(places, store=store)
    load_plugins_of(Request(rows, places))
    found = records_of_suite(rows.suite, store_of(places), Tracking())
    return gathered(chosen(found.records, rows))
