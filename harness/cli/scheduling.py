"""The scheduler that a command line chooses."""

from __future__ import annotations

from harness.cli.stopping import terminate_as_interrupt
from harness.errors import UsageError
from harness.execution.schedulers.base import Scheduler
from harness.execution.schedulers.inline import InlineScheduler
from harness.execution.schedulers.lazy import LazyScheduler
from harness.planning.request import Machine


def scheduler_of(machine: Machine) -> Scheduler:
    """The scheduler of that name, made when its first stage runs; raises UsageError for an unknown name."""
    if machine.scheduler not in ("ray", "inline"):
        raise UsageError(f"--scheduler {machine.scheduler}: one of ray, inline")

    def make() -> Scheduler:
        if machine.scheduler == "inline":
            return InlineScheduler()
        from harness.execution.schedulers.ray_tasks import RayScheduler

        made = RayScheduler(machine.ray_address)
        terminate_as_interrupt()  # ray.init installs a handler of its own
        return made

    return LazyScheduler(make)
