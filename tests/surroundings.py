"""Disks that are full or read-only, and processes that are killed: real ones, in a forked child."""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

_CLONE_NEWNS = 0x00020000


def forked(function: Callable[[], Any], *, seconds: float = 240) -> Any:
    """What the function gives in a child process; a failure there is one here, a kill gives None."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_report, args=(function, there))
    child.start()
    there.close()
    try:
        assert here.poll(seconds), "the child takes too long"
        value, trouble = here.recv()
    except EOFError:
        value, trouble = None, ""
    finally:
        child.kill()
        child.join()
    assert not trouble, trouble
    return value


def _report(function: Callable[[], Any], there: Connection) -> None:
    if "torch" in sys.modules:
        import torch

        # Threads of OpenMP do not survive a fork: the child would wait for those of its parent for ever.
        torch.set_num_threads(1)
    try:
        there.send((function(), ""))
    except BaseException:
        there.send((None, traceback.format_exc()))


def read_only(folder: Path) -> None:
    """Make a folder read-only for this process alone, also for root; to be called in a forked child."""
    _own_mounts()
    _mount("--bind", str(folder), str(folder))
    _mount("-o", "remount,ro,bind", str(folder))


def tiny_disk(folder: Path, kilobytes: int) -> None:
    """Put an empty disk of that size at the folder for this process alone; as `read_only`."""
    _own_mounts()
    _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))


def _own_mounts() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        raise PermissionError(ctypes.get_errno(), "unshare")
    _mount("--make-rprivate", "/")


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@functools.cache
def _may_mount() -> bool:
    try:
        forked(_own_mounts)
    except AssertionError:
        return False
    return os.geteuid() == 0


def needs_mounts() -> None:
    """Skip the test where this process may not mount anything."""
    if not _may_mount():
        pytest.skip("needs the right to mount")
