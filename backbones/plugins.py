"""What installed packages add under an entry-point group, for every registry that takes plug-ins."""

from __future__ import annotations

import importlib.metadata
import re
import warnings
from collections.abc import Iterator
from typing import Any


def entry_points_of(group: str) -> Iterator[tuple[str, Any]]:
    """Name and loaded object of each entry point of a group; one that does not load warns and is skipped."""
    for point in importlib.metadata.entry_points(group=group):
        try:
            loaded = point.load()
        except Exception as error:  # a stranger's package may raise anything
            warnings.warn(f"plug-in {point.value} is skipped: {type(error).__name__}: {error}", stacklevel=2)
            continue
        yield point.name, loaded


def has_entry_points(group: str) -> bool:
    """Whether any installed package adds to a group; nothing is loaded."""
    return bool(importlib.metadata.entry_points(group=group))


def is_fit_name(name: object) -> bool:
    """Whether a plug-in's thing may be called so: names become parts of settings' and of files' names."""
    return isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name) is not None
