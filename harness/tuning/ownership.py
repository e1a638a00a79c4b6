"""Which process runs which trial, and whether it still lives.

    STORE/studies/ask.lock           held while a process counts, asks and signs a trial
    STORE/studies/owners/<id>.lock   held by a searching process for as long as it lives

Optuna's heartbeats do not run with ask and tell, and its journal has none. A searching process therefore
signs its trials and holds a file lock, which the kernel drops with the process: a running trial whose
owner's lock is free was interrupted.
"""

from __future__ import annotations

import fcntl
import uuid
from contextlib import AbstractContextManager
from pathlib import Path

from harness.store.files import locked

OWNER = "owner"
"""Trial attribute: the process that runs it."""


class Owners:
    """The searching processes of a store: this one's identity, and whether others live."""

    def __init__(self, store: Path) -> None:
        self._folder = store / "studies" / "owners"
        self._folder.mkdir(parents=True, exist_ok=True)
        self.id = uuid.uuid4().hex[:12]
        self._lock = self._path(self.id).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _path(self, owner: str) -> Path:
        return self._folder / f"{owner}.lock"

    def is_gone(self, owner: str) -> bool:
        """Whether an owner of this store has died; false for one that searches from another store."""
        if owner == self.id:
            return False
        try:
            with self._path(owner).open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            return False
        return True

    def __enter__(self) -> Owners:
        return self

    def __exit__(self, *error: object) -> None:
        """Let go: what this process still runs counts as interrupted from now on."""
        self._lock.close()


def asking(store: Path) -> AbstractContextManager[None]:
    """Hold the store's right to count, ask and sign trials inside the block; another process waits."""
    return locked(store / "studies" / "ask.lock")
