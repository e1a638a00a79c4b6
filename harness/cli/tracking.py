"""The MLflow server that run, tune and leaderboard share, as an option."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.errors import UsageError
from harness.planning.request import option
from results.tracking import Tracker, TrackingError, local_uri


@dataclass(frozen=True)
class Tracking:
    """Where records are tracked."""

    panel: ClassVar[str] = "Output"
    uri: str | None = option(
        None, "--tracking-uri", help="An MLflow server; default a SQLite file in the store.", metavar="URI"
    )

    def of_store(self, store: Path) -> str:
        """The given server, or the database file of that store."""
        return self.uri or local_uri(store)

    def refuse_unreachable(self, suite: str) -> None:
        """Raise UsageError where a given server cannot be used, before hours of work and not after them."""
        if self.uri is None:
            return
        try:
            Tracker(self.uri).load(suite)
        except TrackingError as error:
            raise UsageError(str(error)) from None
