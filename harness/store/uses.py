"""Who works with a store, and what the runs that began on it want of it; kept for who makes room or a table.

Every verb that makes artifacts holds one shared lock while it works, which the kernel drops with its process.
A run's plan stays when the run has ended, so that one that was killed keeps what it has made, and its table
can be shown where neither weights nor data are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    trials: Sequence[Mapping[str, Any]] = ()
    """What a table needs of each of its trials, as plain values; `harness.planning.plan` reads them."""
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """List of the suite, such as `backbones` -> the values in it that the run was narrowed away from."""
    finished: bool = False
    """Whether all that is wanted was there when somebody made room: none of it is missed since."""
    begun_at: float = 0.0
    """When it was last begun, seconds since the epoch."""


_KINDS = {"suite": str, "wanted": list, "needs": dict, "trials": list, "left_out": dict, "finished": bool}
"""Key of a plan's file -> what its value is."""


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
        digest = hashlib.sha256("\n".join((plan.suite, *plan.wanted)).encode()).hexdigest()[:24]
        said = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan) if f.name != "begun_at"}
        write_json(self.root / "plans" / f"{digest}.json", said)

    def plans(self) -> list[StoredPlan]:
        """Plans of all runs on the store, as far as they can be read."""
        found = []
        for path in sorted((self.root / "plans").glob("*.json")):
            said = read_mapping(path)
            if all(isinstance(said.get(name), kind) for name, kind in _KINDS.items()):
                known = {name: said[name] for name in _KINDS} | {"trials": tuple(said["trials"])}
                found.append(StoredPlan(**known, begun_at=path.stat().st_mtime))
        return found

    @property
    def _gate(self) -> Path:
        return self.root / "claims" / "store.lock"

    def _may_write(self) -> bool:
        folder = self.root / "claims"
        while not folder.exists():
            folder = folder.parent
        return os.access(folder, os.W_OK)
