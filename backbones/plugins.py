"""Installed plug-ins: what other distributions offer under an entry-point group."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Iterator
from typing import Any


def entry_points_of(group: str) -> Iterator[tuple[str, Any]]:
    """Name and object of every entry point of the group; one that does not load warns and is skipped."""
    for point in importlib.metadata.entry_points(group=group):
        try:
            loaded = point.load()
        except Exception as error:  # a stranger's package may raise anything
            warnings.warn(f"plug-in {point.value} is skipped: {error}", stacklevel=2)
        else:
            yield point.name, loaded
