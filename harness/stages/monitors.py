"""What looks at a student after each epoch of its training: a search's watcher, and the oracle.

None of them changes the student or draws from its generators, and their time is none of the training's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.stages.base import RunContext, Stage, Watch
from harness.stages.data_guard import data_allowed
from harness.stages.progress import StageProgress
from harness.stages.rebuild import task_of, teacher_of
from harness.store import Store
from tasks.base import EvaluationOptions

if TYPE_CHECKING:
    from torch import nn

    from methods.base import EpochMonitor


class Monitors:
    """Several epoch monitors as one."""

    def __init__(self, monitors: Sequence[EpochMonitor]) -> None:
        self._all = tuple(monitors)
        self.seconds = 0.0
        """Wall-clock spent in them so far."""

    def __call__(self, epoch: int, student: nn.Module) -> None:
        """Let each look at the student after the epoch."""
        start = time.perf_counter()
        for monitor in self._all:
            monitor(epoch, student)
        self.seconds += time.perf_counter() - start

    def or_none(self) -> Monitors | None:
        """These monitors, or None where there are none and an engine need not stop for them."""
        return self if self._all else None


class Watcher:
    """Reports a student's score every few epochs, and ends the stage when asked to."""

    def __init__(
        self, watch: Watch, stage: Stage, context: RunContext, store: Store, progress: StageProgress
    ) -> None:
        self._watch, self._stage, self._context = watch, stage, context
        self._store, self._progress = store, progress
        epochs: int = stage.settings["engine_config"].get("epochs", 1)
        self._every = -(-epochs // watch.reports)

    def __call__(self, epoch: int, student: nn.Module) -> None:
        """Raises StageStopped when somebody asked the stage to stop."""
        self._progress.stop_if_asked()
        if (epoch + 1) % self._every == 0:
            with data_allowed():
                teacher = teacher_of(self._stage, self._context)
                value = self._watch.score(student, teacher, self._context, self._store)
            self._progress.report(epoch + 1, value)
            self._progress.stop_if_asked()


class Oracle:
    """Best score over epochs on the report split; measured beside the training, never used by it."""

    def __init__(self, stage: Stage, context: RunContext, best: float = 0.0) -> None:
        """`best` is that of the epochs before this stage's."""
        self._stage, self._context = stage, context
        self.best = best
        """The task's ranking metric (percent)."""

    def __call__(self, epoch: int, student: nn.Module) -> None:
        """Score the student on the report split."""
        with data_allowed():
            task = task_of(self._stage.settings["oracle"]["task"], self._context)
            teacher = teacher_of(self._stage, self._context)
            scores = task.evaluate(
                student, teacher, "report", EvaluationOptions(batch_size=self._context.images_at_once)
            )
        self.best = max(self.best, scores.metrics[task.primary_metric])
