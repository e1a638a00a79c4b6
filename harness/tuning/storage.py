"""Where Optuna keeps studies: the journal of a store, or a database at an address.

STORE/studies/journal.log            the default storage
              journal.torn-TIME.log  a copy of a journal whose last line a kill had cut short
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from backbones.names import shown
from harness.errors import UsageError, one_line
from harness.store.files import locked
from results.addresses import shown_address, without_passwords

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.storages.journal._file import BaseJournalFileLock

_CONNECT_SECONDS = 5


def open_storage(url: str | None, store: Path) -> BaseStorage:
    """The study storage at `url`, or the store's journal; raises UsageError at once when out of reach."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return _journal(store) if url is None else _database(url)


def _journal(store: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = store / "studies" / "journal.log"
    lock = path.with_name("journal.lock")
    with locked(lock):
        _cut_torn_line(path)
    held = cast("BaseJournalFileLock", _JournalLock(lock))
    return JournalStorage(JournalFileBackend(str(path), lock_obj=held))


class _JournalLock:
    """A lock for Optuna's journal that ends with its process, so that a kill leaves nothing to wait for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: AbstractContextManager[None] | None = None

    def acquire(self) -> bool:
        """Wait for the lock; always true."""
        held = locked(self._path)
        held.__enter__()
        self._held = held
        return True

    def release(self) -> None:
        """Let the lock go."""
        assert self._held is not None
        held, self._held = self._held, None
        held.__exit__(None, None, None)


def _cut_torn_line(journal: Path) -> None:
    """Cut off a last line without its end, keeping a copy: a kill in the middle of a write leaves one."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        shutil.copy(journal, journal.with_name(f"journal.torn-{int(time.time())}.log"))
        os.truncate(journal, whole)


def _database(url: str) -> BaseStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import NullPool

    connect = {"connect_timeout": _CONNECT_SECONDS} if url.startswith("postgresql") else {}
    _refuse_unreachable(url, connect)
    # A search talks to its study a few times a second at most: no connection is kept in between.
    with _explained(url):
        return RDBStorage(url, engine_kwargs={"connect_args": connect, "poolclass": NullPool})


def _refuse_unreachable(url: str, connect: Mapping[str, Any]) -> None:
    """Connect once before Optuna makes tables; a missing folder of an SQLite file is not made."""
    import sqlalchemy

    with _explained(url):
        engine = sqlalchemy.create_engine(url, connect_args=dict(connect))
        with engine.connect():
            pass
        engine.dispose()


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """Whatever is raised inside becomes a UsageError that hides it: it may hold the password."""
    try:
        yield
    except Exception as error:  # SQLAlchemy's drivers raise unrelated kinds
        said = without_passwords(one_line(error, before="(Background on"), url)[:300]
        cause = shown(re.sub(r"^\([\w.]+\) ", "", said))  # the driver's class, which tells a user nothing
        raise UsageError(
            f"--study-storage {shown(shown_address(url))} cannot be used ({cause}): give "
            "postgresql://USER@HOST/DATABASE or sqlite:///FILE, or leave it out for the store's own journal"
        ) from None
