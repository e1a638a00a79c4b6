"""`harness report`: a page that anybody can open, and the table in other formats, from records alone."""

from __future__ import annotations

import dataclasses
import gc
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from harness.cli.leaderboard import NOT_READ, records_of_suite, store_of
from harness.cli.options import narrowing, with_options
from harness.cli.tracking import Tracking
from harness.errors import Faults
from harness.planning.request import Places, Request, Rows
from harness.planning.session import load_plugins_of
from harness.reporting.choosing import chosen
from harness.reporting.extras import extras_of
from harness.reporting.leaderboard import board_of, published_names
from harness.reporting.suite_runs import SuiteRecords
from harness.store import Store
from harness.store.files import read_mapping, write_bytes, write_json
from results.grouping import Row
from results.record import Record
from results.report.files import MARK, NAMES, can_write_parquet, files_of
from results.report.report import report_of

EPILOG = "harness report --suite digits_w4a4 --output site, then open site/index.html"
_MARK = "dfq-harness report"


@with_options(Rows, Places, without=("suite",), helps=NOT_READ)
def report(
    rows: Rows,
    places: Places,
    suites: Annotated[
        list[str],
        typer.Option("--suite", "-s", metavar="NAME", help="A suite's name, or a YAML file; repeatable."),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="Folder to write: new, or of a report.")
    ],
) -> None:
    """Write a suite's report: one page without a network, and its table as text, CSV, LaTeX and Parquet."""
    folder, faults, found = Path(output), Faults(), []
    faults += _folder_faults(folder)
    names = dict.fromkeys(suites)
    with faults.gathered():
        load_plugins_of(Request(dataclasses.replace(rows, suite=next(iter(names))), places))
    store = store_of(places)
    for name in names:
        with faults.gathered():
            own = records_of_suite(name, store, Tracking())
            asked = Request(dataclasses.replace(rows, suite=name), places)
            found.append(_Found(asked, own, chosen(own.records, rows)))
    faults.raise_any()
    _write(folder, found, store)


class _Found(NamedTuple):
    """A suite that was asked for, what is known of it, and the records that were chosen."""

    request: Request
    suite: SuiteRecords
    records: list[Record]


def _folder_faults(folder: Path) -> list[str]:
    if not folder.exists():
        return []
    if not folder.is_dir():
        return [f"--output {folder}: is a file; give a folder that is new or holds a report"]
    if any(folder.iterdir()) and read_mapping(folder / MARK).get("made_by") != _MARK:
        return [f"--output {folder}: holds files that are no report; give a new or an empty folder"]
    return []


def _write(folder: Path, found: Sequence[_Found], store: Store) -> None:
    suites: dict[str, list[str]] = defaultdict(list)
    records: dict[str, Record] = {}
    asked: dict[str, Request] = {}
    for request, suite, chosen_records in found:
        for record in chosen_records:
            suites[record.trial].append(suite.suite)
            records.setdefault(record.trial, record)
            asked.setdefault(record.trial, request)
    remarks = [remark for one in found for remark in one.suite.remarks()]
    trials = [trial for one in found for trial in one.suite.trials if trial.trial in records]
    gc.freeze()  # records stay until the end: a search among them for garbage finds nothing
    board = board_of(records.values(), remarks=remarks)
    commands = [_command(row, asked[row.first.trial]) for row in board.sources]
    made = report_of(
        board,
        published_names(records.values()),
        suites=suites,
        commands=commands,
        extras=extras_of(trials, store),
    )
    write_json(folder / MARK, {"made_by": _MARK, "suites": list(made.suites)}, indent=1)
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)
    written = 0
    for file in files_of(made, board):
        write_bytes(folder / file.name, file.content)
        written += len(file.content)
    said = "" if can_write_parquet() else "; no table.parquet, which needs pyarrow"
    print(f"{folder / 'index.html'}: {len(made.rows)} rows, {written / 1e6:.1f} MB with its tables{said}")


def _command(row: Row, request: Request) -> str:
    """What runs the row again: the suite, narrowed to it; where things lie is each machine's own.

    Settings that a run was given with `--set` are told beside it, not in it.
    """
    one = row.first
    chosen = dataclasses.replace(
        request.rows,
        backbones=(one.backbone,),
        seeds=tuple(str(record.seed) for record in row.records),
        methods=request.rows.methods if row.is_full_precision else (one.method,),
        bits=request.rows.bits if row.is_full_precision else (one.bits,),
        budget=one.budget,
        engines=(one.engine,) if one.track == "controlled" and one.engine != "none" else request.rows.engines,
    )
    return f"harness run {narrowing(Request(chosen))}"
