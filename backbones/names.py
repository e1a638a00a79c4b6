"""Ends the error about an unknown name with the names that were perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: str, known: Iterable[str]) -> str:
    """': did you mean A or B?' when near names exist, else ': there are A, B, C' to end an error message."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f": did you mean {' or '.join(near)}?"
    return f": there are {', '.join(names)}" if names else ""
