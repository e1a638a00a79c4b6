"""Further attempts at a synthesis that failed, each with seeds of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from methods.base import SynthesisFailed

_ATTEMPTS = 2
"""A synthesis that fails is tried once more, with the next seed."""

_Made = TypeVar("_Made")


def with_retries(make: Callable[[int], _Made]) -> tuple[_Made, tuple[str, ...]]:
    """What `make(attempt)` gives for the first attempt that succeeds, and a note per attempt that failed.

    Raises SynthesisFailed when all attempts failed. Any other error is raised at once: only a collapsed
    synthesis may turn out differently with another seed.
    """
    notes: list[str] = []
    for attempt in range(_ATTEMPTS - 1):
        try:
            return make(attempt), tuple(notes)
        except SynthesisFailed as error:
            notes.append(f"synthesis was repeated with the next seed: {error}")
    try:
        return make(_ATTEMPTS - 1), tuple(notes)
    except SynthesisFailed as error:
        raise SynthesisFailed(f"{error} (tried {_ATTEMPTS} seeds)") from error
