"""The scheduler that a command line chooses."""

from __future__ import annotations

from harness.errors import UsageError
from harness.execution.schedulers.base import Scheduler
from harness.execution.schedulers.lazy import LazyScheduler
from harness.execution.schedulers.registry import get_scheduler, scheduler_names
from harness.planning.request import Machine

_AWAITED = {"ray": "Ray", "inline": ""}
"""What a user waits for until the first stage begins; a plug-in's scheduler goes by its name."""


def scheduler_of(machine: Machine) -> Scheduler:
    """The scheduler of that name, made when its first stage runs; raises UsageError for an unknown name."""
    if machine.scheduler not in scheduler_names():
        raise UsageError(f"--scheduler {machine.scheduler}: one of {', '.join(scheduler_names())}")

    return LazyScheduler(
        lambda: get_scheduler(machine.scheduler)(machine.ray_address),
        _AWAITED.get(machine.scheduler, machine.scheduler),
    )
