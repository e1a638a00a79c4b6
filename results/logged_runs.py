"""MLflow's runs as records need them: an id, a start and tags, read from a tracking database without MLflow.

Loading MLflow takes seconds and one of its runs milliseconds; the tags of thousands are one query. Only
tables exactly as the installed MLflow makes them are read; `new_runs` writes them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BUSY_SECONDS = 20.0
"""As long as MLflow waits for a database that another program locks."""
_QUERY = """
select runs.run_uuid, runs.start_time, tags.key, tags.value
from tags join runs on runs.run_uuid = tags.run_uuid
join experiments on experiments.experiment_id = runs.experiment_id
where experiments.name = ? and runs.lifecycle_stage = 'active' and ({names}){tagged}
"""
_TAGGED = """
and exists (select 1 from tags own where own.run_uuid = runs.run_uuid and own.key = ? and own.value = 'true')
"""
_REVISION = re.compile(r"""^(revision|down_revision) = ["'](\w+)["']""", re.MULTILINE)
"""What the files of MLflow's migrations say of themselves."""


class OtherTables(Exception):
    """A database whose tables are not those that the installed MLflow makes: one that may ask it instead."""


@dataclass(frozen=True)
class LoggedRun:
    """A run that was logged, with those of its tags that were asked for."""

    run_id: str
    start_time: int
    """Milliseconds since 1970."""
    tags: dict[str, str]


def read_runs(
    database: Path, experiment: str, names: Sequence[str], tagged: str | None = None
) -> list[LoggedRun]:
    """The runs of an experiment that were not deleted, newest first, with the tags of these names.

    A `*` in a name stands for any text. Only runs with the tag `tagged` are read where one is given. Raises
    OtherTables, and sqlite3.Error for a database that cannot be read.
    """
    query = _QUERY.format(
        names=" or ".join("tags.key glob ?" for _ in names), tagged=_TAGGED if tagged is not None else ""
    )
    wanted = [experiment, *names, *([] if tagged is None else [tagged])]
    runs: dict[str, LoggedRun] = {}
    with contextlib.closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as connection:
        refuse_others(connection)
        for run_id, start_time, name, value in connection.execute(query, wanted):
            runs.setdefault(run_id, LoggedRun(run_id, start_time, {})).tags[name] = value
    return sorted(runs.values(), key=lambda run: run.start_time, reverse=True)


def refuse_others(connection: sqlite3.Connection) -> None:
    """Raise OtherTables unless the tables are those that the installed MLflow makes."""
    tables = "select count(*) from sqlite_master where type = 'table' and name = 'alembic_version'"
    if connection.execute(tables).fetchone()[0]:
        versions = connection.execute("select version_num from alembic_version").fetchall()
        if versions == [(_newest_migration(),)]:
            return
    raise OtherTables


@functools.cache
def _newest_migration() -> str:
    """The version of the tables of the installed MLflow: the one migration on which no other one builds."""
    spec = importlib.util.find_spec("mlflow")
    places = (spec and spec.submodule_search_locations) or []
    found: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for place in places:
        for file in Path(place, "store", "db_migrations", "versions").glob("*.py"):
            for kind, version in _REVISION.findall(file.read_text(encoding="utf-8")):
                found[kind].add(version)
    newest = found["revision"] - found["down_revision"]
    return newest.pop() if len(newest) == 1 else ""
