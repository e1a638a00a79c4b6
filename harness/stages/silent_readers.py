"""Readers of torch and safetensors, and a starter of processes, that Python's audit events do not tell of.

Each is wrapped once per process, so that whoever imports it afterwards has the wrapped one too.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

_READERS = (
    ("torch", "from_file"),
    ("torch", "UntypedStorage.from_file"),
    ("torch.jit", "load"),
    ("safetensors", "safe_open"),
    ("safetensors._safetensors_rust", "safe_open"),
    ("safetensors.numpy", "safe_open"),
    ("safetensors.torch", "safe_open"),
)
"""Module and attribute of what opens a path that it is given."""

Check = Callable[[object], None]


def watch_silent_readers(reading: Check, starting: Check) -> None:
    """From now on call `reading` with each path that is about to be read, `starting` with each program."""
    for module, attribute in _READERS:
        *outer, name = attribute.split(".")
        owner = functools.reduce(getattr, outer, importlib.import_module(module))
        setattr(owner, name, _checked(getattr(owner, name), reading))
    _watch_torchvision(reading)
    processes: Any = importlib.import_module("_posixsubprocess")  # multiprocessing's `spawn` tells of nothing
    start = processes.fork_exec

    def fork_exec(words: Any, *rest: Any) -> Any:
        starting(os.fsdecode(words[0]))
        return start(words, *rest)

    processes.fork_exec = fork_exec


def _checked(read: Callable[..., Any], check: Check) -> Callable[..., Any]:
    @functools.wraps(read, updated=())
    def checked(*positional: Any, **named: Any) -> Any:
        for value in (*positional, *named.values()):
            if isinstance(value, str | bytes | os.PathLike):
                check(value)
        return read(*positional, **named)

    return checked


def _watch_torchvision(check: Check) -> None:
    """`torchvision.io` reads by one operator of torch, which is looked up by its name at every call."""
    import torch

    operators: Any = torch.ops.image

    def read_file(path: str) -> Any:
        check(path)
        del operators.read_file
        try:
            return operators.read_file(path)
        finally:
            operators.read_file = read_file

    operators.read_file = read_file
