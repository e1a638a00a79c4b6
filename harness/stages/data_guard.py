"""Keeps methods away from data sets at run time: while guarded, opening a protected folder raises.

The import rule (`methods` never imports `tasks`) is the first wall; this one also stops a plug-in that opens
the folder by itself. It watches Python's audit events, so it costs nothing per tensor operation, and it is
no security sandbox: a method that means to cheat from C code is out of scope.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_EVENTS = ("open", "os.listdir", "os.scandir")
_protected: tuple[str, ...] = ()
_installed = False


class DataAccessRefused(Exception):
    """A method looked for a data set while images or a student were being made."""


@contextlib.contextmanager
def no_data(folders: list[Path]) -> Iterator[None]:
    """Refuse access to `folders`, and to scikit-learn's embedded data sets, inside the block."""
    global _protected
    _install()
    before = _protected
    _protected = tuple(os.path.realpath(folder) for folder in [*folders, *_embedded_datasets()])
    try:
        yield
    finally:
        _protected = before


@contextlib.contextmanager
def data_allowed() -> Iterator[None]:
    """Lift the guard inside the block, for the harness's own oracle evaluation."""
    global _protected
    before, _protected = _protected, ()
    try:
        yield
    finally:
        _protected = before


def _install() -> None:
    global _installed
    if not _installed:
        sys.addaudithook(_audit)
        _installed = True


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _protected or event not in _EVENTS or not arguments:
        return
    path = arguments[0]
    if not isinstance(path, str | bytes | os.PathLike):
        return
    real = os.path.realpath(os.fsdecode(path))
    for folder in _protected:
        if real == folder or real.startswith(folder + os.sep):
            raise DataAccessRefused(
                f"a data-free method tried to read {Path(real).name} in a data set's folder"
            )


def _embedded_datasets() -> list[Path]:
    spec = importlib.util.find_spec("sklearn")
    return (
        [Path(place) / "datasets" / "data" for place in (spec.submodule_search_locations or [])]
        if spec
        else []
    )
