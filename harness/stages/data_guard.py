"""Keeps methods away from data sets at run time: while guarded, opening a protected folder raises.

The import rule (`methods` never imports `tasks`) is the first wall; this one also stops a plug-in that opens
the folder by itself. It watches Python's audit events, so it costs nothing per tensor operation, and wraps
the few readers of torch and safetensors that open files without one. It guards against accidents and is no
sandbox: docs/design/data-guard.md lists what it stops and what it does not.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.stages.base import RunContext
from harness.stages.data_places import led_to, open_places
from harness.stages.silent_readers import watch_silent_readers

_READING = ("open", "os.listdir", "os.scandir", "os.chdir", "os.link", "os.rename", "sqlite3.connect")
"""Audit events whose first argument is what is read, entered, or given another name."""
_STARTING = ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.spawn", "os.system", "pty.spawn")
"""Audit events that start a program, in which nobody watches."""
_MAY_START = ("ctypes.util", "platform", "torch._inductor.", "torch.utils.cpp_extension", "triton.")
"""Beginnings of the names of modules that find and compile libraries with other programs."""
_IN_BETWEEN = ("harness.stages.", "subprocess", "os", "pty", "multiprocessing", "concurrent.futures")
_PROJECT = Path(__file__).resolve().parents[2]


class DataAccessRefused(Exception):
    """A method looked for a data set while images or a student were being made."""


@dataclass(frozen=True)
class _Guard:
    """What is refused, as real paths."""

    folders: frozenset[str]
    files: frozenset[str]
    """What links in the folders lead to."""
    needed: frozenset[str]
    """Folders inside of protected ones that stay open."""
    programs: bool
    """Whether other programs may be started."""

    def hides(self, path: str) -> bool:
        """Whether a path leads into a protected folder; the innermost folder that is known decides."""
        real = os.path.realpath(path)
        if real in self.files:
            return True
        around = [f for f in self.folders | self.needed if real == f or real.startswith(f.rstrip("/") + "/")]
        return bool(around) and max(around, key=len) in self.folders


_guard: _Guard | None = None
_installed = False


@contextlib.contextmanager
def no_data(context: RunContext, *, reference: bool = False, programs: bool = False) -> Iterator[None]:
    """Refuse access to the context's data inside the block, wherever links in it lead, and to scikit-learn's.

    A real-data `reference` may look at the former. Programs are started by compilers alone, unless `programs`
    allows them to all. The store, this project and Python stay open although they lie in a data
    folder.
    """
    global _guard
    _install()
    folders = [*([] if reference else context.data.values()), *_embedded_datasets()]
    real = [os.path.realpath(folder) for folder in folders]
    links = [led_to(folder) for folder in real]
    open_ones = [context.store, _PROJECT, Path(sys.prefix), Path(sys.base_prefix)]
    before = _guard
    _guard = _Guard(
        folders=frozenset(real).union(*(link.folders for link in links)),
        files=frozenset().union(*(link.files for link in links)),
        needed=frozenset(os.path.realpath(folder) for folder in open_ones) - set(real),
        programs=programs,
    )
    try:
        yield
    finally:
        _guard = before


@contextlib.contextmanager
def data_allowed() -> Iterator[None]:
    """Lift the guard inside the block, for the harness's own oracle evaluation."""
    global _guard
    before, _guard = _guard, None
    try:
        yield
    finally:
        _guard = before


def _install() -> None:
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_audit)
        watch_silent_readers(_refuse_reading, _refuse_program)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _guard is None:
        return
    if event in _READING:
        # Only os.open and what names files can be relative to a folder that was opened before.
        beside = event in ("os.link", "os.rename") or (event == "open" and arguments[1] is None)
        _refuse_reading(arguments[0], beside_open_folders=beside)
    elif event in _STARTING:
        _refuse_program(arguments[0] or arguments[1])


def _refuse_reading(what: object, *, beside_open_folders: bool = False) -> None:
    """Raise DataAccessRefused where a path or a descriptor leads into a protected folder."""
    if _guard is None:
        return
    for path in open_places(what, beside_open_folders):
        if _guard.hides(path):
            raise DataAccessRefused(
                f"a data-free method tried to read {os.path.basename(path)} in a data set's folder"
            )


def _refuse_program(program: object) -> None:
    """Raise DataAccessRefused for a program in which nobody watches, unless Python or torch starts it."""
    if _guard is None or _guard.programs or _starter().startswith(_MAY_START):
        return
    words = (os.fsdecode(program) if isinstance(program, bytes) else str(program)).split() or ["a program"]
    raise DataAccessRefused(
        f"a data-free method tried to start {os.path.basename(words[0])}, which could read a data set"
    )


def _starter() -> str:
    """Name of the module that starts a program: the innermost one that is no part of doing so."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_IN_BETWEEN):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", ""))


def _embedded_datasets() -> list[Path]:
    spec = importlib.util.find_spec("sklearn")
    return (
        [Path(place) / "datasets" / "data" for place in (spec.submodule_search_locations or [])]
        if spec
        else []
    )
