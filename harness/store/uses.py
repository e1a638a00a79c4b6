"""Who works with a store, and what the runs that began on it want of it; kept for who makes room.

Every verb that makes artifacts holds one shared lock while it works, which the kernel drops with its process.
A run's plan stays when the run has ended, so that one that was killed keeps what it has made.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.store.files import read_mapping, store_faults, write_json


@dataclass(frozen=True)
class StoredPlan:
    """What a run wants of the store."""

    suite: str
    wanted: Sequence[str]
    """Keys of what it is run for."""
    needs: Mapping[str, Sequence[str]]
    """Key of each of its stages -> keys that this one needs to be made."""
    finished: bool = False
    """Whether all that is wanted was there when somebody made room: none of it is missed since."""
    begun_at: float = 0.0
    """When it was last begun, seconds since the epoch."""


@dataclass(frozen=True)
class UsesFolder:
    """Implements `harness.store.base.Uses` in a folder."""

    root: Path

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Work with the store inside the block: nobody else removes anything; waits while somebody does.

        Nothing happens where the store cannot be written.
        """
        if not self._may_write():
            yield
            return
        with store_faults(self.root):
            self._gate.parent.mkdir(parents=True, exist_ok=True)
            file = self._gate.open("a", encoding="utf-8")
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one inside the block; raises UsageError while others work with the store."""
        with store_faults(self.root):
            self._gate.parent.mkdir(parents=True, exist_ok=True)
            file = self._gate.open("a", encoding="utf-8")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"the store {self.root} is in use: prune it when nothing runs on it"
                ) from None
            yield

    def write_plan(self, plan: StoredPlan) -> None:
        """Remember a run's plan; the same one again is young again."""
        digest = hashlib.sha256("".join(plan.wanted).encode()).hexdigest()[:24]
        said = {"suite": plan.suite, "wanted": list(plan.wanted), "needs": dict(plan.needs)}
        write_json(self.root / "plans" / f"{digest}.json", {**said, "finished": plan.finished})

    def plans(self) -> list[StoredPlan]:
        """Plans of all runs that began on the store and lacked something, as far as they can be read."""
        found = []
        for path in sorted((self.root / "plans").glob("*.json")):
            said = read_mapping(path)
            suite, wanted, needs = (said.get(name) for name in ("suite", "wanted", "needs"))
            if isinstance(suite, str) and isinstance(wanted, list) and isinstance(needs, dict):
                finished = said.get("finished") is True
                found.append(StoredPlan(suite, wanted, needs, finished, path.stat().st_mtime))
        return found

    @property
    def _gate(self) -> Path:
        return self.root / "claims" / "store.lock"

    def _may_write(self) -> bool:
        folder = self.root / "claims"
        while not folder.exists():
            folder = folder.parent
        return os.access(folder, os.W_OK)
