"""The store in a folder, on a disk that all processes of a run share.

STORE/artifacts/<key>/{meta.json, data.safetensors}    finished stages
STORE/artifacts/<key>/images.safetensors               the set of a stage that made one beside a student
STORE/artifacts/<key>.sample/                          a few images of a set that was dropped
STORE/failures/<key>.json                              why a stage gave nothing when it last ran
STORE/failures/<key>.txt                               the traceback that belongs to it
STORE/claims/<key>.lock                                locked by the process that makes the artifact
STORE/partial/                                         artifacts that are being written
STORE/progress/<key>.json                              how far a running stage is
STORE/reports/<key>.json                               what a watched stage scored on the way
STORE/reports/<key>.stop                               somebody asks that stage to stop
STORE/plans/<digest>.json                              what a run wants, for who makes room or a table
STORE/claims/store.lock                                shared by all that work with the store
STORE/timings.json                                     seconds that stages took, for estimates
STORE/mlflow.db                                        written by `results.tracking`
STORE/pictures/SUITE/                                  written by `harness.reporting.detection_pictures`
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from harness.store.artifacts import ArtifactFolder
from harness.store.files import store_faults
from harness.store.signals import SignalFolder
from harness.store.timings import TimingsFile
from harness.store.uses import UsesFolder

_FOLDERS = ("artifacts", "failures", "claims", "progress", "reports", "partial")


@dataclass(frozen=True)
class FolderStore(ArtifactFolder, SignalFolder, TimingsFile, UsesFolder):
    """Implements `harness.store.base.Store` under one absolute path; equal where the path is."""

    def create(self) -> FolderStore:
        """Make the folders; raises UsageError where that is not allowed."""
        with store_faults(self.root):
            for name in _FOLDERS:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            if not self.is_writable():
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self.root))
        return self

    def is_writable(self) -> bool:
        """Whether the folder, or the nearest one above it that is there, may be written."""
        folder = self.root
        while not folder.exists():
            folder = folder.parent
        return os.access(folder, os.W_OK)
