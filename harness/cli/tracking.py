"""The MLflow server that run, tune and leaderboard share, as an option."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.errors import UsageError
from harness.planning.request import option
from results.database import database_of, is_writable, local_uri
from results.tracking import Tracker, TrackingError


@dataclass(frozen=True)
class Tracking:
    """Where records are tracked."""

    panel: ClassVar[str] = "Output"
    uri: str | None = option(
        None, "--tracking-uri", help="An MLflow server; default a SQLite file in the store.", metavar="URI"
    )

    def tracker(self, store: Path) -> Tracker:
        """The tracker on the given address, or on the database file of that store; raises TrackingError.

        A broken database of the store is set aside, and stderr says so; a given one is not ours to move.
        """
        return Tracker(self.uri) if self.uri else Tracker(local_uri(store), _say)

    def is_read_only(self, store: Path) -> bool:
        """Whether records would be tracked in that store, and it cannot be written."""
        return self.uri is None and not is_writable(database_of(store))

    def refuse_unreachable(self) -> None:
        """Raise UsageError where a given server cannot be used, before hours of work and not after them."""
        if self.uri is None:
            return
        try:
            Tracker(self.uri).reach()
        except TrackingError as error:
            raise UsageError(str(error)) from None


def _say(sentence: str) -> None:
    print(f"harness: {sentence}", file=sys.stderr)
