"""A search whose study lives in PostgreSQL: a private server on loopback, made and stopped by the test."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from harness.errors import UsageError
from harness.tuning import studies
from harness.tuning.ownership import Owners, asking
from harness.tuning.storage import open_storage
from tests.harness.tuning.test_studies import ask, opened


def _binary(name: str) -> str | None:
    """A server program: Debian keeps them off the path."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(places[-1]) if places else shutil.which(name)


def _as_postgres() -> dict[str, int]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    initdb, postgres = _binary("initdb"), _binary("postgres")
    if initdb is None or postgres is None:
        pytest.skip("needs PostgreSQL's server programs (Debian: apt-get install postgresql)")
    folder = Path(f"/tmp/dfq-postgres-{os.getpid()}")  # a socket's path must be short
    folder.mkdir()
    who = _as_postgres()
    if who:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"check": True, "capture_output": True, "cwd": folder, **who}
    subprocess.run([initdb, "-D", str(folder / "data"), "-U", "me", "-A", "trust", "--no-sync"], **settings)
    command = [postgres, "-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **who)
    try:
        url = f"postgresql+psycopg://me@127.0.0.1:{port}/postgres"
        _wait_until_it_answers(url)
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # does not wait for clients
        process.wait(timeout=20)
        shutil.rmtree(folder)


def _wait_until_it_answers(url: str) -> None:
    import sqlalchemy

    for _ in range(100):
        try:
            engine = sqlalchemy.create_engine(url)
            engine.connect().close()
            engine.dispose()
            return
        except sqlalchemy.exc.OperationalError:
            time.sleep(0.1)
    raise AssertionError("the server did not start")


@pytest.fixture
def store(tmp_path) -> Path:
    (tmp_path / "studies").mkdir()
    return tmp_path


def test_a_study_in_postgres_is_resumed_and_its_interrupted_trial_queued_again(server, store):
    study = opened(store, "resumed", storage=open_storage(server, store))
    with Owners(store) as dead:
        study.tell(ask(study, dead), 1.0)
        lost = ask(study, dead)
    again = opened(store, "resumed", resume=True, storage=open_storage(server, store))
    with Owners(store) as owners, asking(store):
        assert studies.queue_interrupted(again, owners) == [lost.number]
        repeated = ask(again, owners)
    assert repeated.params == lost.params
    again.tell(repeated, 2.0)
    assert [t.value for t in again.trials if t.state == TrialState.COMPLETE] == [1.0, 2.0]
    assert not (store / "studies" / "journal.log").exists()


def test_a_study_of_another_method_is_refused_in_postgres_too(server, store):
    opened(store, "named", storage=open_storage(server, store))
    with pytest.raises(UsageError, match="another search"):
        opened(store, "named", {"method": "other"}, storage=open_storage(server, store))


def test_a_plain_address_finds_the_driver(server, store):
    plain = server.replace("postgresql+psycopg", "postgresql")
    assert opened(store, "plain", storage=open_storage(plain, store)).trials == []


def test_a_database_that_is_not_there_is_said_at_once(server, store):
    with pytest.raises(UsageError, match='database "nowhere" does not exist'):
        open_storage(server.replace("/postgres", "/nowhere"), store)
