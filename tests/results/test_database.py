"""The tracking database is whole or absent; a broken one is kept under another name and refilled."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from results import database as databases
from results.database import local_uri
from results.tracking import Tracker, TrackingError
from tests.results.fakes import record
from tests.surroundings import forked, needs_mounts, tiny_disk

STATEMENTS = 200
"""SQL statements of a creation in which a kill falls; there are more."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A database with one record: making one takes seconds."""
    folder = tmp_path_factory.mktemp("whole")
    Tracker(local_uri(folder)).log([record("before")], "before")
    return folder / "mlflow.db"


@pytest.fixture
def quick(monkeypatch, whole):
    """A new database is a copy of the prepared one."""
    monkeypatch.setattr(databases, "create_whole", lambda database, fill: shutil.copy(whole, database))


def killed_at(statement: int, work) -> None:
    """Do the work in a process that is killed when it begins that SQL statement."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    begun = []

    def count(*_):
        begun.append(1)
        if len(begun) == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    def child() -> str:
        event.listen(Engine, "before_cursor_execute", count)
        work()
        return "alive"

    assert forked(child) is None


@pytest.mark.slow
def test_a_kill_during_creation_leaves_nothing_that_another_run_falls_over(tmp_path):
    drawn = random.Random(0)
    for statement in (1, *(drawn.randint(2, STATEMENTS) for _ in range(3))):
        killed_at(statement, lambda: Tracker(local_uri(tmp_path)).log([record("killed")], "killed"))
        assert not (tmp_path / "mlflow.db").exists()
    assert list(tmp_path.glob("mlflow.db.partial-*"))
    tracker = Tracker(local_uri(tmp_path))
    tracker.log([record("killed")], "killed")
    assert tracker.load("killed") == [record("killed")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def half_made(database: Path, whole: Path, statement: int) -> None:
    from mlflow import MlflowClient

    killed_at(statement, lambda: MlflowClient(tracking_uri=databases.database_uri(database)).search_runs([]))
    assert database.stat().st_size > 0


def truncated(database: Path, whole: Path, *, share: float) -> None:
    content = whole.read_bytes()
    database.write_bytes(content[: int(len(content) * share)])


def overwritten(database: Path, whole: Path) -> None:
    content = bytearray(whole.read_bytes())
    content[8192:-8192] = b"\xff" * (len(content) - 16384)
    database.write_bytes(content)


BROKEN = {
    "killed early": lambda *files: half_made(*files, statement=30),
    "killed late": lambda *files: half_made(*files, statement=STATEMENTS),
    "cut in the middle": lambda *files: truncated(*files, share=0.5),
    "cut in its header": lambda *files: truncated(*files, share=0.0001),
    "overwritten": overwritten,
    "text": lambda database, _: database.write_bytes(b"this is no database, " * 100),
    "without tables": lambda database, _: sqlite3.connect(database).execute("create table t (x)").close(),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_database_is_set_aside_and_said_in_one_sentence(tmp_path, whole, quick, kind):
    database = tmp_path / "mlflow.db"
    BROKEN[kind](database, whole)
    (tmp_path / "mlflow.broken-1.db").write_text("an earlier one")
    content, said = database.read_bytes(), []
    tracker = Tracker(local_uri(tmp_path), said.append)
    tracker.log([record("after")], "after")
    assert tracker.load("after") == [record("after")]
    (sentence,) = said
    assert f"the tracking database {database} could not be used (it" in sentence
    assert "it is kept as mlflow.broken-2.db, and a new one is filled" in sentence
    assert "\n" not in sentence
    kept = tmp_path / "mlflow.broken-2.db"
    assert kept.stat().st_size == len(content)
    assert (tmp_path / "mlflow.broken-1.db").read_text() == "an earlier one"
    assert not list(tmp_path.glob("mlflow.db-*"))


@pytest.mark.parametrize("kind", ["cut in the middle", "text"])
def test_without_leave_a_broken_database_is_refused_and_left(tmp_path, whole, kind):
    database = tmp_path / "mlflow.db"
    BROKEN[kind](database, whole)
    before = database.read_bytes()
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be used \(it is .*\): move it away"):
        Tracker(local_uri(tmp_path)).log([record()], "refused")
    assert database.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.parametrize(
    "version", ["ffffffffffff", "84291f40a231"], ids=["of a later MLflow", "of an earlier MLflow"]
)
def test_a_database_of_another_version_is_left_as_it_is(tmp_path, whole, version):
    database = tmp_path / "mlflow.db"
    shutil.copy(whole, database)
    connection = sqlite3.connect(database)
    connection.execute("update alembic_version set version_num = ?", (version,))
    connection.commit()
    connection.close()
    before, said = database.read_bytes(), []
    with pytest.raises(TrackingError, match=r"another version of MLflow .*: it is left as it is") as caught:
        Tracker(local_uri(tmp_path), said.append).load("suite")
    assert version in str(caught.value)
    assert "\n" not in str(caught.value)
    assert database.read_bytes() == before
    assert said == []


def test_the_journal_of_a_lost_database_is_not_played_into_the_next(tmp_path, whole):
    (tmp_path / "mlflow.db-journal").write_bytes(b"left alone")
    databases.create_whole(
        tmp_path / "mlflow.db", lambda uri: shutil.copy(whole, uri.removeprefix("sqlite:///"))
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_full_disk_leaves_no_database_and_says_so(tmp_path):
    needs_mounts()

    def child() -> tuple[str, list[str]]:
        tiny_disk(tmp_path, kilobytes=64)
        with pytest.raises(TrackingError) as caught:
            Tracker(local_uri(tmp_path)).log([record()], "full")
        return str(caught.value), [path.name for path in tmp_path.iterdir()]

    said, names = forked(child)
    assert (
        said == f"the tracking database {tmp_path}/mlflow.db cannot be written (the disk is full): make room"
    )
    assert names == ["mlflow.db.lock"]
