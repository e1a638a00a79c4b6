"""Runs written into a tracking database in few transactions, without MLflow, which takes much longer.

Only tables exactly as known here are written, and only where the installed MLflow makes them so; a test holds
what is written equal to what MLflow's client writes.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.logged_runs import BUSY_SECONDS, OtherTables, refuse_others

_COLUMNS = {
    "runs": (
        "run_uuid",
        "name",
        "source_type",
        "source_name",
        "entry_point_name",
        "user_id",
        "status",
        "start_time",
        "end_time",
        "source_version",
        "lifecycle_stage",
        "artifact_uri",
        "experiment_id",
        "deleted_time",
    ),
    "tags": ("run_uuid", "key", "value"),
    "params": ("run_uuid", "key", "value"),
    "metrics": ("run_uuid", "key", "value", "is_nan", "timestamp", "step"),
    "latest_metrics": ("run_uuid", "key", "value", "is_nan", "timestamp", "step"),
}
"""Every column of the tables that are written."""
_TOGETHER = 500
"""Runs of one transaction: some megabytes of records."""


@dataclass(frozen=True)
class NewRun:
    """A run that has ended, before it is written."""

    name: str
    is_good: bool
    """Whether it is shown as finished, else as failed."""
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    """No infinite ones."""
    tags: Mapping[str, str]

    @property
    def status(self) -> str:
        """As MLflow calls it."""
        return "FINISHED" if self.is_good else "FAILED"


class DatabaseWriter:
    """Collects what is to be written and writes it whole, some hundred runs at a time; `flush` ends it.

    Raises OtherTables where the database is none that it knows, or holds no such experiment that is in use.
    """

    def __init__(self, database: Path, experiment: str) -> None:
        self._database = database
        self._rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _COLUMNS}
        with self._connected() as connection:
            refuse_others(connection)
            _refuse_other_columns(connection)
            self._experiment, self._artifacts = _experiment(connection, experiment)

    def write(self, run: NewRun) -> str:
        """Id of a run that is written with the next flush."""
        run_id, now, rows = uuid.uuid4().hex, int(time.time() * 1000), self._rows
        place = f"{self._artifacts.rstrip('/')}/{run_id}/artifacts"
        known = (
            "UNKNOWN",
            "",
            "",
            "unknown",
            run.status,
            now,
            now,
            "",
            "active",
            place,
            self._experiment,
            None,
        )
        rows["runs"].append((run_id, run.name, *known))
        tags = {**run.tags, "mlflow.runName": run.name}
        rows["tags"] += [(run_id, key, value) for key, value in tags.items()]
        rows["params"] += [(run_id, key, value) for key, value in run.params.items()]
        metrics = [
            (run_id, key, 0.0 if math.isnan(value) else value, math.isnan(value), now, 0)
            for key, value in run.metrics.items()
        ]
        rows["metrics"] += metrics
        rows["latest_metrics"] += metrics
        if len(rows["runs"]) >= _TOGETHER:
            self.flush()
        return run_id

    def tag(self, run_id: str, key: str, value: str) -> None:
        """Set a tag of a run with the next flush."""
        self._rows["tags"].append((run_id, key, value))

    def flush(self) -> None:
        """Write what was collected, all of it or nothing."""
        if not any(self._rows.values()):
            return
        with self._connected() as connection, connection:
            connection.execute("begin immediate")
            for table, rows in self._rows.items():
                columns, places = ", ".join(_COLUMNS[table]), ", ".join("?" * len(_COLUMNS[table]))
                connection.executemany(f"insert or replace into {table} ({columns}) values ({places})", rows)
        for rows in self._rows.values():
            rows.clear()

    def _connected(self) -> contextlib.closing[sqlite3.Connection]:
        return contextlib.closing(sqlite3.connect(self._database, timeout=BUSY_SECONDS))


def _refuse_other_columns(connection: sqlite3.Connection) -> None:
    for table, columns in _COLUMNS.items():
        found = {name for _, name, *_ in connection.execute(f"pragma table_info({table})")}
        triggers = "select count(*) from sqlite_master where type = 'trigger' and tbl_name = ?"
        if found != set(columns) or connection.execute(triggers, (table,)).fetchone()[0]:
            raise OtherTables


def _experiment(connection: sqlite3.Connection, name: str) -> tuple[int, str]:
    """Id of the experiment and the place of its artifacts."""
    query = """select experiment_id, artifact_location from experiments
    where name = ? and lifecycle_stage = 'active'"""
    found = connection.execute(query, (name,)).fetchall()
    if len(found) != 1 or not found[0][1] or set("?#") & set(found[0][1]):
        raise OtherTables
    identity, artifacts = found[0]
    return identity, artifacts
