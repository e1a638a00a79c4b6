"""The SQLite file that records are tracked in: its address, its lock, created whole, set aside when broken.

    mlflow.db                 the database, whole whenever it is there
    mlflow.db.lock            held by the process that reads or writes
    mlflow.db.partial-<id>    one that is being created; what a kill leaves of it is removed by the next
    mlflow.broken-<n>.db      one that could not be used, kept as it was found

Knows nothing about what the tables hold, but that MLflow makes an experiment as soon as they are complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

_ESCAPED = re.compile("[?#%]")
_WITH_DRIVER = "sqlite+pysqlite"
_SIBLINGS = ("", "-journal", "-wal", "-shm")
"""What SQLite writes beside a database; a journal without its database would be played into the next one."""
_BUSY_SECONDS = 20.0
"""As long as MLflow waits for a database that another program locks."""


def local_uri(folder: Path) -> str:
    """The address of the tracking database inside a store's folder."""
    return database_uri(database_of(folder))


def database_of(folder: Path) -> Path:
    """The tracking database inside a store's folder."""
    return folder / "mlflow.db"


def database_uri(database: Path) -> str:
    """The `sqlite:///` address of a file, escaped where its path has characters that mean something there.

    SQLAlchemy ends the path at a question mark and reads a percent sign as the start of an escape. An escaped
    address names the driver too: MLflow makes a folder of the escaped name for one that does not.
    """
    path = str(database.absolute())
    if not _ESCAPED.search(path):
        return f"sqlite:///{path}"
    from sqlalchemy.engine import URL

    return URL.create(_WITH_DRIVER, database=path).render_as_string()


def database_file(uri: str) -> Path | None:
    """Absolute path of the file of a `sqlite:///` address; None for any other address."""
    scheme, slashes, path = uri.partition(":///")
    if not slashes or scheme not in ("sqlite", _WITH_DRIVER):
        return None
    if _ESCAPED.search(path):
        from sqlalchemy.engine import make_url

        path = make_url(uri).database or ""
    return Path(path).expanduser().absolute()


def is_writable(database: Path) -> bool:
    """Whether the database, there or to be made, and the files beside it may be written."""
    folder = database.parent
    while not folder.exists():
        folder = folder.parent
    files = (file for file in (database, _lock_of(database)) if file.exists())
    return all(os.access(place, os.W_OK) for place in (folder, *files))


def _lock_of(database: Path) -> Path:
    return Path(f"{database}.lock")


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the database for one process: two that create it at once would leave it broken for good."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with open(_lock_of(database), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released with the file, also when the process dies
        yield


def is_created(database: Path) -> bool:
    """Whether something lies there; an empty file is what a kill leaves of a creation in place."""
    return database.exists() and (not database.is_file() or database.stat().st_size > 0)


def create_whole(database: Path, fill: Callable[[str], object]) -> None:
    """Put a database in its place that `fill` made, or none at all; call it while the database is locked.

    `fill` is given the address of another file and has to leave no open connection to it.
    """
    for leftover in database.parent.glob(f"{glob.escape(database.name)}.partial-*"):
        leftover.unlink()
    partial = database.with_name(f"{database.name}.partial-{uuid.uuid4().hex}")
    try:
        fill(database_uri(partial))
        _flush(partial)
        for sibling in _SIBLINGS[1:]:
            Path(f"{database}{sibling}").unlink(missing_ok=True)
        os.replace(partial, database)
        _flush(database.parent)
    finally:
        for sibling in _SIBLINGS:
            Path(f"{partial}{sibling}").unlink(missing_ok=True)


def fault_of(database: Path) -> str:
    """Why a database that is there holds nothing that can be used; empty where it may.

    One with an experiment is somebody's data, whatever MLflow makes of its tables: that is no fault. Raises
    sqlite3.OperationalError while another program locks it.
    """
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=_BUSY_SECONDS)) as connection:
            (found,) = connection.execute("pragma quick_check(1)").fetchone()
            if found != "ok":
                return "it is damaged"
            return "" if _experiments(connection) else "its tables are half-made"
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return "it is no database" if "not a database" in str(error) else "it is damaged"


def set_aside(database: Path) -> Path:
    """Rename a broken database and SQLite's files beside it; the new path."""
    number = 1
    while (kept := database.with_name(f"{database.stem}.broken-{number}{database.suffix}")).exists():
        number += 1
    # The database last: as long as it stands, the next process finds it broken again.
    for sibling in reversed(_SIBLINGS):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{database}{sibling}", f"{kept}{sibling}")
    return kept


def copied(database: Path, folder: Path) -> Path:
    """A copy of a database that cannot be written: MLflow opens none that is read-only."""
    for sibling in ("", "-journal", "-wal"):  # what a kill left in a journal is undone in the copy
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(f"{database}{sibling}", folder / f"{database.name}{sibling}")
    return folder / database.name


def _experiments(connection: sqlite3.Connection) -> int:
    """How many experiments there are; MLflow makes its first one once all tables are complete."""
    tables = "select count(*) from sqlite_master where type = 'table' and name = 'experiments'"
    if not connection.execute(tables).fetchone()[0]:
        return 0
    (count,) = connection.execute("select count(*) from experiments").fetchone()
    return int(count)


def _flush(path: Path) -> None:
    """See that a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
