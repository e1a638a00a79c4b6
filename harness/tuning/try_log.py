"""Tracks the tries of a search in MLflow; a server that is lost costs a warning, and not the search.

The study and the store hold every try. What could not be tracked when it ended is tracked at the end of the
search, or when the search is resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.record import Record
from results.tracking import Tracker, TrackingError

if TYPE_CHECKING:
    from rich.console import Console

TriesSoFar = Callable[[], Iterable[int]]
"""Gives the numbers of the tries that have ended and that no other living process tracks."""
RecordsOf = Callable[[int], Sequence[Record]]
"""Gives the records of a try by its number, a record per seed."""


class TryLog:
    """The tracked run of one search, with a nested run per try."""

    def __init__(
        self,
        tracker: Tracker,
        name: str,
        facts: Mapping[str, Any],
        tries: TriesSoFar,
        records_of: RecordsOf,
        console: Console,
    ) -> None:
        self._tracker = tracker
        self._name = name
        self._facts = facts
        self._tries = tries
        self._records_of = records_of
        self._console = console
        self.lost = ""
        """Why nothing is tracked any more; empty while everything is."""

    def open(self) -> None:
        """Track the search itself, and those tries of earlier processes that are not tracked yet."""
        self._unless_lost(self._catch_up)

    def add(self, number: int) -> None:
        """Track a try that has ended."""

        def log() -> None:
            for record in self._records_of(number):
                self._tracker.log_try(self._parent(), number, record)

        self._unless_lost(log)

    def close(self, values: Mapping[str, float], folder: Path) -> None:
        """Track the search's best values and files; a lost server gets one more chance, with all tries."""
        was_lost, self.lost = bool(self.lost), ""

        def log() -> None:
            if was_lost:
                self._catch_up()
            self._tracker.close_search(self._parent(), values, folder)

        self._unless_lost(log, quietly=was_lost)

    def _catch_up(self) -> None:
        parent = self._parent()
        logged = self._tracker.logged_tries(parent)
        for number in self._tries():
            if number not in logged:
                for record in self._records_of(number):
                    self._tracker.log_try(parent, number, record)

    def _parent(self) -> str:
        return self._tracker.open_search(self._name, self._facts)

    def _unless_lost(self, log: Callable[[], None], *, quietly: bool = False) -> None:
        if self.lost:
            return
        try:
            log()
        except TrackingError as error:
            self.lost = str(error)
            if not quietly:
                self._console.print(
                    f"warning: {error}; the search goes on, and its tries are tracked at its end "
                    "or with --resume",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
