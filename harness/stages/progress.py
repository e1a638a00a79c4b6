"""How a running stage speaks with the processes that wait for it: progress, reports, a request to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from harness.store import Store

_INTERVAL_SECONDS = 0.3
"""Least time between two progress files of one stage."""


class StageStopped(Exception):
    """A watched stage was asked to stop."""


class StageTimedOut(Exception):
    """A stage took longer than it may."""


def timed_out(seconds: float, limit: float) -> str:
    """Why a stage was ended after so many seconds."""
    late = f" at its first sign of life beyond {limit:.0f} s" if seconds >= limit + 1 else ""
    return f"timed out after {seconds:.0f} s{late}; --stage-timeout sets another limit, 0 none"


class StageProgress:
    """A `methods.base.Progress` that writes into the store, and what a watched or limited stage needs."""

    def __init__(
        self,
        store: Store,
        key: str,
        on_report: Callable[[], None] = lambda: None,
        limit: float | None = None,
    ) -> None:
        self._store, self._key, self._on_report, self._limit = store, key, on_report, limit
        self._start = self._last = time.time()
        self._reports: dict[int, float] = {}

    def begin(self) -> None:
        """Say that a worker has the stage, before it has made a step."""
        self._write(0, 0, {})

    def __call__(self, step: int, total: int, losses: Mapping[str, float]) -> None:
        """Say how far the stage is; written a few times a second at most.

        Raises StageTimedOut when the stage has run for longer than its limit.
        """
        now = time.time()
        if self._limit is not None and now - self._start > self._limit:
            raise StageTimedOut(timed_out(now - self._start, self._limit))
        if now - self._last >= _INTERVAL_SECONDS:
            self._last = now
            self._write(step, total, losses)

    def _write(self, step: int, total: int, losses: Mapping[str, float]) -> None:
        said = {"step": step, "total": total, "losses": dict(losses), "started": self._start}
        self._store.write_progress(self._key, said)

    def report(self, step: int, value: float) -> None:
        """Say what the stage scores at this step; every report is written at once."""
        self._reports[step] = value
        self._store.write_reports(self._key, self._reports)
        self._on_report()

    def stop_if_asked(self) -> None:
        """Raise StageStopped if somebody asked this stage to stop."""
        if self._store.is_asked_to_stop(self._key):
            raise StageStopped("the search asked it to stop")
