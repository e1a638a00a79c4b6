"""Which names of a user may become files and folders of a store. Knows nothing about what they name."""

from __future__ import annotations

_MOST_BYTES = 100
"""Room is left for what is put before and behind a name: a file system takes 255."""


def name_fault(name: str) -> str:
    """What keeps a name from being that of a file or a folder, half a sentence; empty where nothing does."""
    if not name:
        return "a name has at least one letter"
    if name[0] in ".-":
        return "a name does not begin with '.' or '-'"
    if "/" in name or not name.isprintable():
        return "a name has no '/' and no letters that cannot be shown"
    if len(name.encode()) > _MOST_BYTES:
        return f"a name has at most {_MOST_BYTES} bytes"
    return ""
