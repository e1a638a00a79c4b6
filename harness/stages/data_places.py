"""Where a path, a descriptor or a link leads. Knows nothing about who may go there."""

from __future__ import annotations

import contextlib
import functools
import os
from collections import deque
from typing import NamedTuple

_MOST_ENTRIES = 100_000
_DESCRIPTORS = "/proc/self/fd"
"""The open files of this process, as Linux shows them; elsewhere descriptors are not followed."""


class Targets(NamedTuple):
    """What the links in a folder lead to, as real paths."""

    folders: frozenset[str]
    files: frozenset[str]


@functools.cache
def led_to(folder: str) -> Targets:
    """What the links in a folder, and in the folders that they lead to, lead to; read once per process.

    Looks at 100,000 entries, the outermost first. A link to what the folder itself lies in is left out.
    """
    folders: set[str] = set()
    files: set[str] = set()
    waiting, left = deque([folder]), _MOST_ENTRIES
    while waiting and left > 0:
        with contextlib.suppress(OSError), os.scandir(waiting.popleft()) as entries:
            for entry in entries:
                left -= 1
                if left <= 0:
                    break
                if not entry.is_symlink():
                    if entry.is_dir():
                        waiting.append(entry.path)
                    continue
                target = os.path.realpath(entry.path)
                if f"{folder}/".startswith(target.rstrip("/") + "/") or target in folders:
                    continue
                if os.path.isdir(target):
                    folders.add(target)
                    waiting.append(target)
                else:
                    files.add(target)
    return Targets(frozenset(folders), frozenset(files))


def open_places(what: object, beside_open_folders: bool) -> list[str]:
    """The paths that a path or a descriptor, as given to the system, may stand for.

    With `beside_open_folders` a relative path may start from any folder that this process has open, as with
    `os.open(name, flags, dir_fd=...)`: the audit event does not say from which.
    """
    if what is None:
        return ["."]
    if isinstance(what, int):
        return _behind(what)
    if not isinstance(what, str | bytes | os.PathLike):
        return []
    path = os.fsdecode(what).removeprefix("file:").partition("\0")[0]
    if os.path.isabs(path) or not beside_open_folders:
        return [path]
    return [path, *(os.path.join(folder, path) for folder in _open_folders())]


def _behind(descriptor: int) -> list[str]:
    """The path of an open file; empty where it has none, as a pipe, or none is known."""
    try:
        path = os.readlink(f"{_DESCRIPTORS}/{descriptor}")
    except OSError:
        return []
    return [path] if os.path.isabs(path) else []


def _open_folders() -> list[str]:
    try:
        descriptors = os.listdir(_DESCRIPTORS)
    except OSError:
        return []
    return [path for descriptor in descriptors for path in _behind(int(descriptor)) if os.path.isdir(path)]
