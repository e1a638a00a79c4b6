"""Seconds that stages took on a store, in one file, so that the next plan can say how long it will take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.store.files import is_number, locked, read_mapping, write_json


@dataclass(frozen=True)
class TimingsFile:
    """Implements `harness.store.base.Timings` in a folder."""

    root: Path

    def timings(self) -> dict[str, float]:
        """Seconds that a stage took, by `Stage.timing_name`, as seen on this store."""
        seen = read_mapping(self.root / "timings.json")
        # An estimate is worth no error: what a damaged file holds instead of seconds is passed over.
        return {name: seconds for name, seconds in seen.items() if is_number(seconds)}

    def add_timings(self, seen: Mapping[str, float]) -> None:
        """Merge new timings; the latest wins."""
        if seen:
            with locked(self.root / "claims" / "timings.lock"):
                write_json(self.root / "timings.json", {**self.timings(), **seen})
