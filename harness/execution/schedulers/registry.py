"""Names to schedulers, imported only when asked for; installed packages add theirs.

A plug-in is a class, or a function, that takes a cluster's address (None where the user gave none) and gives
a `Scheduler`. It is found under its name in the entry-point group `dfq_harness.schedulers`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import TypeAlias

from backbones.names import suggestion
from backbones.plugins import entry_points_of
from harness.errors import UsageError
from harness.execution.schedulers.base import Scheduler

ENTRY_POINT_GROUP = "dfq_harness.schedulers"

SchedulerFactory: TypeAlias = "Callable[[str | None], Scheduler]"

_BUILT_IN = {
    "ray": "harness.execution.schedulers.ray_tasks:RayScheduler",
    "inline": "harness.execution.schedulers.inline:InlineScheduler",
}


def scheduler_names() -> list[str]:
    """Every registered scheduler, built-in ones first."""
    return [*_BUILT_IN, *_plug_ins()]


def get_scheduler(name: str) -> SchedulerFactory:
    """What makes the scheduler of that name for an address; raises UsageError with near names."""
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        factory: SchedulerFactory = getattr(importlib.import_module(module), attribute)
        return factory
    plug_ins = _plug_ins()
    if name not in plug_ins:
        raise UsageError(f"unknown scheduler '{name}'{suggestion(name, [*_BUILT_IN, *plug_ins])}")
    return plug_ins[name]


def _plug_ins() -> dict[str, SchedulerFactory]:
    """Schedulers of installed packages; one that cannot be used warns and is skipped."""
    found: dict[str, SchedulerFactory] = {}
    for name, factory in entry_points_of(ENTRY_POINT_GROUP):
        if name in _BUILT_IN or name in found:
            warnings.warn(f"scheduler plug-in '{name}' is skipped: the name is taken", stacklevel=2)
        elif not callable(factory):
            warnings.warn(f"scheduler plug-in '{name}' is skipped: it makes no scheduler", stacklevel=2)
        else:
            found[name] = factory
    return found
