"""Everything that outlives a process: artifacts, signals between processes, timings; opened in one place."""

from __future__ import annotations

from pathlib import Path

from harness.store.base import Store
from harness.store.folder import FolderStore

__all__ = ["Store", "open_store"]


def open_store(root: Path) -> Store:
    """The store at a path. Nothing is written until `create` or a first artifact."""
    return FolderStore(root.absolute())
