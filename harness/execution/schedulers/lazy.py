"""A scheduler that is made when the first stage runs: starting Ray takes seconds, a cached run needs none."""

from __future__ import annotations

from collections.abc import Callable

from harness.execution.schedulers.base import Scheduler, Work
from harness.stages.base import StageResult


class LazyScheduler:
    """What `make` gives, from the first call of `run` until `close`.

    `awaited` names what has to come up, and have room, before a worker begins: every run is told of it.
    """

    def __init__(self, make: Callable[[], Scheduler], awaited: str = "") -> None:
        self._make = make
        self._awaited = awaited
        self._made: Scheduler | None = None

    def run(self, work: Work) -> dict[str, StageResult]:
        """See `Scheduler.run`."""
        work.on_wait(self._awaited)
        if self._made is None:
            self._made = self._make()
        return self._made.run(work)

    def close(self) -> None:
        """Close the scheduler if one was made."""
        if self._made is not None:
            self._made.close()
            self._made = None
