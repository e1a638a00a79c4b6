"""Progress, reports and requests to stop, as small files that other processes read while a stage runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.store.files import is_number, read_mapping, write_json


@dataclass(frozen=True)
class SignalFolder:
    """Implements `harness.store.base.Signals` in a folder.

    A signal is worth nothing once its stage has ended, so it is not flushed to the disk: that would slow the
    training it speaks of.
    """

    root: Path

    def write_progress(self, key: str, progress: Mapping[str, Any]) -> None:
        """Say how far a running stage is."""
        write_json(self._progress(key), dict(progress), durable=False)

    def progress(self, key: str) -> dict[str, Any] | None:
        """What a running stage last said; None where it said nothing or has ended."""
        said = read_mapping(self._progress(key))
        losses = said.setdefault("losses", {})
        whole = all(is_number(said.get(name)) for name in ("step", "total")) and isinstance(losses, dict)
        return said if whole and all(map(is_number, losses.values())) else None

    def clear_progress(self, key: str) -> None:
        """Forget the progress of a stage that has ended."""
        self._progress(key).unlink(missing_ok=True)

    def write_reports(self, key: str, reports: Mapping[int, float]) -> None:
        """Say what a running stage scored so far: step -> value."""
        write_json(self._reports(key), {str(step): v for step, v in reports.items()}, durable=False)

    def reports(self, key: str) -> dict[int, float]:
        """What a stage scored on the way, step -> value; empty where it said nothing."""
        said = read_mapping(self._reports(key))
        return {int(step): value for step, value in said.items() if step.isdecimal() and is_number(value)}

    def ask_to_stop(self, key: str) -> None:
        """Ask a running stage to stop at its next report or epoch."""
        request = self._request(key)
        request.parent.mkdir(parents=True, exist_ok=True)
        request.touch()

    def is_asked_to_stop(self, key: str) -> bool:
        """Whether the stage should stop."""
        return self._request(key).exists()

    def clear_reports(self, key: str) -> None:
        """Forget the reports of an earlier run of the stage, and a request to stop it."""
        for path in (self._reports(key), self._request(key)):
            path.unlink(missing_ok=True)

    def _progress(self, key: str) -> Path:
        return self.root / "progress" / f"{key}.json"

    def _reports(self, key: str) -> Path:
        return self.root / "reports" / f"{key}.json"

    def _request(self, key: str) -> Path:
        return self.root / "reports" / f"{key}.stop"
