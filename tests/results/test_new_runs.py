"""Runs that are written without MLflow are what its client would have written."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import sqlite3
from pathlib import Path

import pytest

from results import new_runs, tracking
from results.database import local_uri
from results.logged_runs import OtherTables
from results.new_runs import DatabaseWriter, NewRun
from results.tracking import Tracker
from tests.results.fakes import failed, record

RECORDS = [
    record("plain", metrics={"top1": 12.5, "kl": math.nan, "top5": math.inf}, gradient_shares={"total": 0.5}),
    record("odd", settings={"engine": {"range%": None, "steps": (1, 2)}}, notes=("zwei – Ünïcode",)),
    record("long", [True] * 400_000),
    failed("lost", reason="x" * 900),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without runs, made once."""
    folder = tmp_path_factory.mktemp("made")
    Tracker(local_uri(folder)).reach()
    return folder / "mlflow.db"


@pytest.fixture
def database(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path))


def rows(database: Path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute(query).fetchall()


def refused(*_) -> DatabaseWriter:
    raise OtherTables


def logged(database: Path) -> list[dict]:
    """What MLflow tells of each run, without its id."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=local_uri(database.parent))
    found = []
    for run in client.search_runs([client.get_experiment_by_name("dfq-harness").experiment_id]):
        info = dict(run.info)
        histories = [client.get_metric_history(run.info.run_id, name) for name in run.data.metrics]
        times = [metric.timestamp for history in histories for metric in history] + [info["end_time"]]
        assert max(abs(time - info["start_time"]) for time in times) < 600_000
        own = {name: info.pop(name) for name in ("run_id", "run_uuid") if name in info}
        info["artifact_uri"] = info["artifact_uri"].replace(own["run_id"], "ID")
        values = {name: None if math.isnan(value) else value for name, value in run.data.metrics.items()}
        data = [
            (dict(one.dataset), [(tag.key, tag.value) for tag in one.tags])
            for one in run.inputs.dataset_inputs
        ]
        found.append(
            {"info": info, "data": data, "tags": run.data.tags, "params": run.data.params, "metrics": values}
        )
    return sorted(found, key=lambda run: run["info"]["run_name"])


def test_what_is_written_is_what_mlflows_client_writes(database, monkeypatch):
    Tracker(local_uri(database.parent)).log(RECORDS, "a suite")
    own = logged(database)
    for table in ("runs", "datasets", "inputs", "input_tags"):
        rows(database, f"delete from {table}")
    assert logged(database) == []
    with monkeypatch.context() as patched:
        patched.setattr(tracking, "DatabaseWriter", refused)
        Tracker(local_uri(database.parent)).log(RECORDS, "a suite")
    assert own == logged(database)
    assert len(own) == len(RECORDS)
    assert {len(run["data"]) for run in own} == {0, 1}  # a failure was evaluated on nothing


@pytest.mark.parametrize(
    "change",
    [
        "alter table tags add column kind text",
        "create trigger watch after insert on params begin select 1; end",
        "update alembic_version set version_num = 'other'",
        "update experiments set lifecycle_stage = 'deleted'",
    ],
)
def test_other_tables_are_not_touched(database, change):
    DatabaseWriter(database, "dfq-harness")
    rows(database, change)
    with pytest.raises(OtherTables):
        DatabaseWriter(database, "dfq-harness")


def test_other_tables_are_left_to_mlflow(database):
    rows(database, "alter table tags add column kind text")
    tracker = Tracker(local_uri(database.parent))
    assert tracker.log(RECORDS[1:], "a suite") == 3
    assert {r.method for r in tracker.load("a suite")} == {"odd", "long", "lost"}


def test_many_runs_are_written_in_parts_and_superseded_ones_are_marked(database, monkeypatch):
    monkeypatch.setattr(new_runs, "_TOGETHER", 2)
    records = [record("many", seed=seed, trial=f"many {seed}") for seed in range(5)]
    again = [dataclasses.replace(one, finished_at="2027-01-01T00:00:00Z") for one in records]
    tracker = Tracker(local_uri(database.parent))
    assert tracker.log([*records, *again], "many") == 10
    assert tracker.load("many") == again
    superseded = dict(rows(database, "select run_uuid, value from tags where key = 'superseded'"))
    assert len(superseded) == 5
    assert set(superseded.values()) == {run for (run,) in rows(database, "select run_uuid from runs")} - set(
        superseded
    )


def test_a_flush_that_fails_writes_nothing(database):
    writer = DatabaseWriter(database, "dfq-harness")
    writer.write(NewRun("good", True, {}, {}, {"content": "c"}, 0, 1, None))
    writer.write(NewRun("bad", True, {"a": None}, {}, {}, 0, 1, None))
    with pytest.raises(sqlite3.IntegrityError):
        writer.flush()
    assert rows(database, "select name from runs") == []
