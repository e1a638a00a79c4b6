"""The store: artifacts by content key, written whole or not at all, checksummed, claimed while being made.

    STORE/artifacts/<key>/{meta.json, data.safetensors}    finished stages
    STORE/failures/<key>.json                              why a stage gave nothing, last time it ran
    STORE/claims/<key>.lock                                locked by the process that makes the artifact
    STORE/progress/<key>.json                              how far a running stage is
    STORE/reports/<key>.json                               what a watched stage scored on the way
    STORE/reports/<key>.stop                               somebody asks that stage to stop
    STORE/timings.json                                     seconds that stages took, for estimates
    STORE/mlflow.db                                        written by `results.tracking`
    STORE/pictures/SUITE/                                  written by `harness.reporting.detection_pictures`

A claim is an advisory file lock: the kernel drops it with its process, so a mark left by a dead process
counts as not done. Knows nothing about what a stage does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor


class Store:
    """Artifacts under one folder; several processes may share it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def create(self) -> Store:
        """Make the folders; raises OSError where that is not allowed."""
        for name in ("artifacts", "failures", "claims", "progress", "reports", "partial"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        return self

    def write(self, key: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Publish an artifact atomically; an older one under the same key is replaced."""
        from safetensors.torch import save_file

        partial = self.root / "partial" / f"{key}-{uuid.uuid4().hex}"
        partial.mkdir(parents=True)
        try:
            save_file(
                {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial / "data.safetensors"
            )
            body = {"meta": dict(meta), "data_sha256": _sha256(partial / "data.safetensors")}
            body["meta_sha256"] = _digest(body["meta"])
            _write_synced(partial / "meta.json", json.dumps(body, indent=1, sort_keys=True))
            final = self._folder(key)
            if final.exists():
                os.rename(final, self.root / "partial" / f"old-{uuid.uuid4().hex}")
            os.rename(partial, final)
        finally:
            for leftover in (self.root / "partial").glob("old-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            shutil.rmtree(partial, ignore_errors=True)

    def meta(self, key: str) -> dict[str, Any]:
        """The artifact's description; raises ArtifactError when absent, torn or altered."""
        return self._body(key)["meta"]

    def tensors(self, key: str) -> dict[str, Tensor]:
        """The artifact's tensors, after their checksum; raises ArtifactError."""
        from safetensors.torch import load_file

        self.verify(key)
        return load_file(self._folder(key) / "data.safetensors")

    def verify(self, key: str) -> None:
        """Raise ArtifactError unless the artifact is there, whole and unaltered."""
        body = self._body(key)
        data = self._folder(key) / "data.safetensors"
        if not data.is_file() or _sha256(data) != body["data_sha256"]:
            raise ArtifactError(f"artifact {key} does not match its checksum")

    def holds(self, key: str) -> bool:
        """Whether a usable artifact is there."""
        try:
            self.verify(key)
        except ArtifactError:
            return False
        return True

    def is_damaged(self, key: str) -> bool:
        """Whether something lies under the key that cannot be used."""
        return self._folder(key).exists() and not self.holds(key)

    def _folder(self, key: str) -> Path:
        return self.root / "artifacts" / key

    def _body(self, key: str) -> dict[str, Any]:
        path = self._folder(key) / "meta.json"
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            intact = body["meta_sha256"] == _digest(body["meta"])
        except FileNotFoundError:
            raise ArtifactError(f"no artifact {key}") from None
        except (OSError, ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            raise ArtifactError(f"the description of artifact {key} is torn or altered")
        return body

    def write_failure(self, key: str, failure: Mapping[str, Any]) -> None:
        """Remember why a stage failed."""
        _replace(self.root / "failures" / f"{key}.json", failure)

    def failure(self, key: str) -> dict[str, Any] | None:
        """Why the stage failed last time, or None."""
        return _read(self.root / "failures" / f"{key}.json")

    def clear_failure(self, key: str) -> None:
        """Forget a failure, since the stage succeeded."""
        (self.root / "failures" / f"{key}.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Hold the stage; waits while another live process makes it."""
        import fcntl

        path = self.root / "claims" / f"{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

    def write_progress(self, key: str, progress: Mapping[str, Any]) -> None:
        """Say how far a running stage is."""
        _replace(self.root / "progress" / f"{key}.json", progress)

    def progress(self, key: str) -> dict[str, Any] | None:
        """What a running stage last said, or None."""
        return _read(self.root / "progress" / f"{key}.json")

    def clear_progress(self, key: str) -> None:
        """The stage runs no more."""
        (self.root / "progress" / f"{key}.json").unlink(missing_ok=True)

    def write_reports(self, key: str, reports: Mapping[int, float]) -> None:
        """Say what a running stage scored so far: step -> value."""
        _replace(self.root / "reports" / f"{key}.json", {str(step): v for step, v in reports.items()})

    def reports(self, key: str) -> dict[int, float]:
        """What a stage scored on the way, step -> value; empty where it said nothing."""
        return {int(step): v for step, v in (_read(self.root / "reports" / f"{key}.json") or {}).items()}

    def ask_to_stop(self, key: str) -> None:
        """Ask a running stage to stop at its next report or epoch."""
        (self.root / "reports" / f"{key}.stop").touch()

    def is_asked_to_stop(self, key: str) -> bool:
        """Whether the stage should stop."""
        return (self.root / "reports" / f"{key}.stop").exists()

    def clear_reports(self, key: str) -> None:
        """Forget reports and requests of an earlier run of the stage."""
        for suffix in ("json", "stop"):
            (self.root / "reports" / f"{key}.{suffix}").unlink(missing_ok=True)

    def timings(self) -> dict[str, float]:
        """Seconds per kind of stage, as seen on this store."""
        return _read(self.root / "timings.json") or {}

    def add_timings(self, seen: Mapping[str, float]) -> None:
        """Merge new timings; the latest wins."""
        if seen:
            _replace(self.root / "timings.json", {**self.timings(), **seen})


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON beside the target and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    partial.write_text(json.dumps(value), encoding="utf-8")
    os.replace(partial, path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
