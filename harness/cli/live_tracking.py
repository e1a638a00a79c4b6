"""Tracks records while a run goes on, a few at a time, so that MLflow shows them as they come."""

from __future__ import annotations

import time

from results.record import Record
from results.tracking import Tracker, TrackingError

_EVERY_SECONDS = 5.0
_SHARE = 20
"""Tracking takes at most one part in so many of a run's time: what is there is read each time."""


class LiveTracking:
    """Takes records one by one; what cannot be tracked now is left to the end of the run."""

    def __init__(self, tracker: Tracker, suite: str) -> None:
        self._tracker = tracker
        self._suite = suite
        self._waiting: list[Record] = []
        self._next = 0.0
        self._is_lost = False

    def add(self, record: Record) -> None:
        """Track the record, with those that wait, unless others were tracked a moment ago."""
        if self._is_lost or record.status != "ok":
            return  # what failed may be tried again in this run
        self._waiting.append(record)
        began = time.monotonic()
        if began < self._next:
            return
        try:
            self._tracker.log(self._waiting, self._suite)
        except TrackingError:
            self._is_lost = True  # said in the end, when all records are tracked
        self._waiting = []
        ended = time.monotonic()
        self._next = ended + max(_EVERY_SECONDS, _SHARE * (ended - began))
