"""Tasks by name: the shipped ones, imported only when asked for, and those of installed plug-ins."""

from __future__ import annotations

import functools
import importlib
import warnings

from backbones.names import suggestion
from backbones.plugins import entry_points_of
from tasks.base import Task

ENTRY_POINT_GROUP = "dfq_harness.tasks"
"""Group of the entry points with which a package offers its task classes."""
_SHIPPED = {
    "digits": "tasks.digits:Digits",
    "digits_scenes": "tasks.digits_scenes:DigitsScenes",
    "imagenet": "tasks.imagenet:ImageNet",
    "coco": "tasks.coco:Coco",
    "images": "tasks.unlabelled_images:UnlabelledImages",
}
_registered: dict[str, type[Task]] = {}
"""Tasks of plug-ins."""


class UnknownTask(ValueError):
    """A task that is not registered."""


class TaskRefused(ValueError):
    """A class that cannot be registered as a task."""


def task_names() -> list[str]:
    """Every registered task, the shipped ones first."""
    _load_entry_points()
    return [*_SHIPPED, *_registered]


def get_task(name: str) -> type[Task]:
    """The task class of that name; raises UnknownTask with near names."""
    if name not in task_names():
        raise UnknownTask(f"unknown task '{name}'{suggestion(name, task_names())}")
    if name in _registered:
        return _registered[name]
    module, attribute = _SHIPPED[name].split(":")
    shipped: type[Task] = getattr(importlib.import_module(module), attribute)
    return shipped


def register_task(task: type[Task]) -> type[Task]:
    """Make a task class known by its `name`; works as a class decorator.

    Raises TaskRefused when it is no task class, or the name belongs to another.
    """
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise TaskRefused(f"{task!r} is no task: derive the class from tasks.base.Task")
    if task.name in _SHIPPED or _registered.get(task.name, task) is not task:
        raise TaskRefused(f"there is a task '{task.name}' already: give the class another name")
    _registered[task.name] = task
    return task


@functools.cache
def _load_entry_points() -> None:
    """Register the tasks of installed packages, once per process; one that is refused warns."""
    for name, task in entry_points_of(ENTRY_POINT_GROUP):
        try:
            register_task(task)
        except TaskRefused as error:
            warnings.warn(f"plug-in {name} is skipped: {error}", stacklevel=2)
