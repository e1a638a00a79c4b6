"""Runs written into a tracking database in few transactions, without MLflow, which takes much longer.

Only tables exactly as known here are written, and only where the installed MLflow makes them so; a test holds
what is written equal to what MLflow's client writes.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

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
    "datasets": (
        "dataset_uuid",
        "experiment_id",
        "name",
        "digest",
        "dataset_source_type",
        "dataset_source",
        "dataset_schema",
        "dataset_profile",
    ),
    "inputs": ("input_uuid", "source_type", "source_id", "destination_type", "destination_id", "step"),
    "input_tags": ("input_uuid", "name", "value"),
}
"""Every column of the tables that are written."""
CONTEXT = "mlflow.data.context"
"""MLflow's own tag for what a data set was used for."""
_TOGETHER = 500
"""Runs of one transaction: some megabytes of records."""


@dataclass(frozen=True)
class DataSet:
    """What a run was evaluated on."""

    name: str
    digest: str
    """At most 36 characters."""
    split: str
    images: int

    @property
    def source(self) -> str:
        """Where it comes from, as MLflow wants it told: JSON."""
        return json.dumps({"task": self.name, "split": self.split})

    @property
    def profile(self) -> str:
        """How large it is, in JSON."""
        return json.dumps({"num_rows": self.images})


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
    start: int
    """Milliseconds since 1970, as `end`."""
    end: int
    data: DataSet | None

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
            self._data = _data_sets(connection, self._experiment)

    def write(self, run: NewRun) -> str:
        """Id of a run that is written with the next flush."""
        run_id, rows = uuid.uuid4().hex, self._rows
        place = f"{self._artifacts.rstrip('/')}/{run_id}/artifacts"
        known = (
            "UNKNOWN",
            "",
            "",
            "unknown",
            run.status,
            run.start,
            run.end,
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
            (run_id, key, 0.0 if math.isnan(value) else value, math.isnan(value), run.end, 0)
            for key, value in run.metrics.items()
        ]
        rows["metrics"] += metrics
        rows["latest_metrics"] += metrics
        if run.data is not None:
            own = uuid.uuid4().hex
            rows["inputs"].append((own, "DATASET", self._data_set(run.data), "RUN", run_id, 0))
            rows["input_tags"].append((own, CONTEXT, run.data.split))
        if len(rows["runs"]) >= _TOGETHER:
            self.flush()
        return run_id

    def _data_set(self, data: DataSet) -> str:
        """Id of a data set, which is written once however many runs were evaluated on it."""
        known = (data.name, data.digest)
        if known not in self._data:
            self._data[known] = uuid.uuid4().hex
            told = ("harness", data.source, None, data.profile)
            self._rows["datasets"].append((self._data[known], self._experiment, *known, *told))
        return self._data[known]

    def attach(self, run_id: str, name: str, text: str) -> None:
        """Lay a text file beside a run, at once. Raises OSError."""
        folder = Path(url2pathname(urlsplit(self._artifacts).path), run_id, "artifacts")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

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


def _data_sets(connection: sqlite3.Connection, experiment: int) -> dict[tuple[str, str], str]:
    """Name and digest of the data sets that are there -> their ids."""
    query = "select name, digest, dataset_uuid from datasets where experiment_id = ?"
    return {(name, digest): found for name, digest, found in connection.execute(query, (experiment,))}


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
    if len(found) != 1 or not (found[0][1] or "").startswith("file:") or set("?#") & set(found[0][1]):
        raise OtherTables
    identity, artifacts = found[0]
    return identity, artifacts
