"""Names to tasks, imported only when asked for."""

from __future__ import annotations

import importlib

from backbones.names import suggestion
from tasks.base import Task

_TASKS = {
    "digits": "tasks.digits:Digits",
    "digits_scenes": "tasks.digits_scenes:DigitsScenes",
    "imagenet": "tasks.imagenet:ImageNet",
    "coco": "tasks.coco:Coco",
    "images": "tasks.unlabelled_images:Images",
}


class UnknownTask(ValueError):
    """A task that is not registered."""


def task_names() -> list[str]:
    """Every registered task."""
    return list(_TASKS)


def get_task(name: str) -> type[Task]:
    """The task class of that name; raises UnknownTask with near names."""
    if name not in _TASKS:
        raise UnknownTask(f"unknown task '{name}'{suggestion(name, _TASKS)}")
    module, attribute = _TASKS[name].split(":")
    return getattr(importlib.import_module(module), attribute)
