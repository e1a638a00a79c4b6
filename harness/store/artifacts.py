"""Artifacts by content key in a folder: written whole or not at all, checksummed, claimed while being made.

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
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ArtifactError, Damaged
from harness.store.files import (
    locked,
    note_of_holder,
    read_mapping,
    store_faults,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_DATA, _IMAGES = "data.safetensors", "images.safetensors"
"""What a stage made, and a set of images that is read apart from it."""


@dataclass(frozen=True)
class ArtifactFolder:
    """Implements `harness.store.base.Artifacts` in a folder that several processes may share."""

    root: Path

    def write(
        self,
        key: str,
        tensors: Mapping[str, Tensor],
        meta: Mapping[str, Any],
        images: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Publish an artifact whole or not at all; an older one under the same key is replaced."""
        partial = self.root / "partial" / f"{key}-{uuid.uuid4().hex}"
        partial.mkdir(parents=True)
        try:
            _fill(partial, tensors, dict(meta), images)
            self._publish(partial, key)
        finally:
            for leftover in (self.root / "partial").glob("old-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            shutil.rmtree(partial, ignore_errors=True)

    def remove(self, key: str) -> int:
        """Remove an artifact, at once for every reader; the bytes that are free now."""
        freed = self.size(key)
        gone = self.root / "partial" / f"old-{uuid.uuid4().hex}"
        gone.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._folder(key), gone)
        shutil.rmtree(gone, ignore_errors=True)
        return freed

    def size(self, key: str) -> int:
        """Bytes of an artifact's files; 0 where there is none."""
        return _bytes_in(self._folder(key))

    def made_at(self, key: str) -> float:
        """When an artifact was written, seconds since the epoch; 0 where there is none."""
        with contextlib.suppress(OSError):
            return self._folder(key).stat().st_mtime
        return 0.0

    def stored_keys(self) -> list[str]:
        """Keys of all artifacts, whole or not."""
        folder = self.root / "artifacts"
        return sorted(os.listdir(folder)) if folder.is_dir() else []

    def meta(self, key: str) -> dict[str, Any]:
        """The artifact's description; raises ArtifactError when absent, Damaged when torn or altered."""
        description: dict[str, Any] = self._body(key)["meta"]
        return description

    def tensors(self, key: str) -> dict[str, Tensor]:
        """The artifact's tensors, on the CPU; raises as `verify` does, and reads no images beside them."""
        return self._loaded(key, _DATA)

    def images(self, key: str) -> dict[str, Tensor]:
        """The images that lie beside the tensors, or the tensors; raises as `verify` does."""
        return self._loaded(key, _IMAGES if _IMAGES in _checksums(self._body(key)) else _DATA)

    def arrays(self, key: str, prefix: str) -> dict[str, np.ndarray]:
        """Those of the artifact's tensors whose names begin so, without loading torch; raises as `verify`."""
        from safetensors import safe_open

        with safe_open(self._verified(key, _DATA, self._body(key)), framework="numpy") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names if name.startswith(prefix)}

    def verify(self, key: str) -> dict[str, Any]:
        """The description of an artifact that is whole; raises ArtifactError when absent, else Damaged."""
        body = self._body(key)
        for name in _checksums(body):
            self._verified(key, name, body)
        description: dict[str, Any] = body["meta"]
        return description

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

    def place(self, key: str) -> Path:
        """The artifact's folder."""
        return self._folder(key)

    def write_failure(self, key: str, failure: Mapping[str, Any], traceback: str = "") -> None:
        """Remember `status` and `reason`; raises UsageError where the store cannot be written."""
        with store_faults(self.root):
            if traceback:
                write_text(self._traceback(key), traceback)
            else:
                self._traceback(key).unlink(missing_ok=True)
            write_json(self._failure(key), dict(failure))

    def failure(self, key: str) -> dict[str, Any] | None:
        """Why the stage failed when it last ran; None where it did not."""
        path = self._failure(key)
        if not path.exists():
            return None
        failure = read_mapping(path)
        if isinstance(failure.get("status"), str) and isinstance(failure.get("reason"), str):
            return failure
        return {"status": "failed", "reason": str(Damaged.at(path))}

    def traceback_file(self, key: str) -> Path | None:
        """Where the traceback of a stage that failed lies; None where there is none."""
        path = self._traceback(key)
        return path if path.exists() else None

    def clear_failure(self, key: str) -> None:
        """Forget a failure, since the stage succeeded."""
        for path in (self._failure(key), self._traceback(key)):
            path.unlink(missing_ok=True)

    def claim(self, key: str, claimant: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Hold the stage inside the block; waits while another live process makes it."""
        return locked(self._claim(key), json.dumps(dict(claimant)))

    def claimant(self, key: str) -> dict[str, Any] | None:
        """Who makes the stage now, as it said itself; None where nobody does."""
        try:
            said: dict[str, Any] | None = json.loads(note_of_holder(self._claim(key)) or "null")
        except ValueError:  # it is being written
            return None
        return said

    def _publish(self, partial: Path, key: str) -> None:
        """Put a filled folder in its place; an older one steps aside first, since a rename needs it gone."""
        final = self._folder(key)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            os.rename(final, self.root / "partial" / f"old-{uuid.uuid4().hex}")
        os.rename(partial, final)

    def _folder(self, key: str) -> Path:
        return self.root / "artifacts" / key

    def _failure(self, key: str) -> Path:
        return self.root / "failures" / f"{key}.json"

    def _traceback(self, key: str) -> Path:
        return self.root / "failures" / f"{key}.txt"

    def _claim(self, key: str) -> Path:
        return self.root / "claims" / f"{key}.lock"

    def _loaded(self, key: str, name: str) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        return load_file(self._verified(key, name, self._body(key)))

    def _verified(self, key: str, name: str, body: Mapping[str, Any]) -> Path:
        """A file of the artifact; raises Damaged unless it is as it was written."""
        path = self._folder(key) / name
        if not path.is_file() or _sha256(path) != _checksums(body)[name]:
            raise Damaged.at(path)
        return path

    def _body(self, key: str) -> dict[str, Any]:
        path = self._folder(key) / "meta.json"
        try:
            body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            intact = body["meta_sha256"] == _digest(body["meta"]) and "data_sha256" in body
            intact &= isinstance(body["meta"], dict)
        except FileNotFoundError:
            if self._folder(key).exists():
                raise Damaged.at(path) from None
            raise ArtifactError(f"no artifact {key}") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            intact = False
        if not intact:
            raise Damaged.at(path)
        return body


def _fill(
    folder: Path, tensors: Mapping[str, Tensor], meta: dict[str, Any], images: Mapping[str, Tensor] | None
) -> None:
    """Write the files of an artifact, the description with the checksums of all."""
    body = {"meta": meta, "data_sha256": _save(tensors, folder / _DATA), "meta_sha256": _digest(meta)}
    if images is not None:
        body["images_sha256"] = _save(images, folder / _IMAGES)
    write_text(folder / "meta.json", json.dumps(body, indent=1, sort_keys=True))


def _save(tensors: Mapping[str, Tensor], path: Path) -> str:
    """Write the tensors; the file's checksum."""
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    return _sha256(path)


def _checksums(body: Mapping[str, Any]) -> dict[str, Any]:
    """File of tensors -> its checksum, of those that an artifact has."""
    images = {_IMAGES: body["images_sha256"]} if "images_sha256" in body else {}
    return {_DATA: body["data_sha256"], **images}


def _bytes_in(folder: Path) -> int:
    """Bytes of the files in a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
