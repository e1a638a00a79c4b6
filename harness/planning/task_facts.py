"""What the splits of a task hold: how many samples, and a digest of them. Each split is read once."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tasks.base import DataError, Split, SplitFacts, Task
from tasks.registry import get_task

UNKNOWN = SplitFacts(sample_count=sys.maxsize, digest="not found", labelled=False, whole=False)
"""Stands for a split whose data is not there: it limits nothing, and no key made with it is final."""


class TaskFacts:
    """The facts of a task's splits, read when first asked for: a whole validation set has 50,000 names."""

    def __init__(self, task_class: type[Task], folder: Path | None, *, outline: bool = False) -> None:
        self.task_class = task_class
        self.missing = ""
        """With `outline`: why data is not there; empty where all that was asked for is."""
        self._task = task_class(folder)
        self._outline = outline and folder is None
        self._known: dict[Split, SplitFacts] = {}

    @classmethod
    def of(cls, task: str, data: Mapping[str, Path], *, outline: bool = False) -> TaskFacts:
        """The facts of the task of that name; `data` maps the NAME of `--data NAME=DIR` to its folder.

        In an outline, data that the user has not given is no error.
        """
        task_class = get_task(task)
        return cls(task_class, data.get(task_class.data_name or ""), outline=outline)

    def __call__(self, split: Split) -> SplitFacts:
        """The facts of a split; raises DataError when its data is missing or broken."""
        if split not in self._known:
            try:
                self._known[split] = self._task.facts(split)
            except DataError as error:
                if not self._outline:
                    raise
                self.missing = str(error)
                self._known[split] = UNKNOWN
        return self._known[split]

    def holding(self, split: Split, count: int, what: str) -> SplitFacts:
        """The facts of a split from which `what` takes `count` images.

        Raises DataError, which says how many images the folder needs, where the split holds fewer.
        """
        facts = self(split)
        if facts.sample_count < count:
            raise DataError(
                f"{what} takes {count} image{'s' if count > 1 else ''} of the {split} split of "
                f"{self.task_class.name}, which holds {facts.sample_count} ({facts.description}): "
                f"give at least {count * facts.one_in} images"
            )
        return facts
