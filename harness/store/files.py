"""Files that appear whole or not at all, and locks between processes. Knows nothing about what they hold."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import UsageError


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write the file whole: beside its place, flushed to the disk, then renamed.

    Missing folders are made; a link is followed. What is no regular file, such as /dev/stdout, is written to
    directly. With `durable=False` the file is still whole for every reader, but may be lost with the power.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


def write_json(path: Path, value: Any, *, indent: int | None = None, durable: bool = True) -> None:
    """Write a value that `json.dumps` takes, as `write_bytes` does; raises TypeError for any other."""
    write_text(path, json.dumps(value, indent=indent), durable=durable)


def read_mapping(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where the file is missing, no JSON, or holds anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_number(value: object) -> bool:
    """Whether a value out of a JSON file is a finite number."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def is_file(path: Path) -> bool:
    """Whether a regular file is there, and not for a name that no file can have either."""
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


@contextlib.contextmanager
def store_faults(root: Path) -> Iterator[None]:
    """Whatever the system refuses inside becomes a UsageError that names the store and the reason."""
    try:
        yield
    except OSError as error:
        place = "" if error.filename in (None, str(root)) else f"{error.filename}: "
        reason = f"{place}{error.strerror or error}"
        raise UsageError(f"the store {root} cannot be written ({reason}): give another --store") from error


@contextlib.contextmanager
def locked(path: Path, note: str = "") -> Iterator[None]:
    """Hold the lock file at `path`, with a note in it for others; waits while another process holds it.

    The lock is advisory and belongs to the process: the kernel drops it when the process ends, however it
    ends. The file itself stays, since removing it would let two processes hold two files of one name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:  # not "w": a note is its holder's
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            file.truncate(0)
            file.write(note)
            file.flush()
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def note_of_holder(path: Path) -> str | None:
    """The note in a lock file that a live process holds; None where nobody does."""
    try:
        file = path.open(encoding="utf-8")
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read()
    return None
