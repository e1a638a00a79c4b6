"""The live view of a run: stages done, running, failed, cached; the running stages' losses; time left."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from harness.execution.schedulers.base import Event
from harness.execution.time_left import TimeLeft
from harness.stages.base import Stage, StageResult, Status
from harness.store import Store
from results.figures import clock, duration, setting
from results.tables import Column, FittedTable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

_FAILED: tuple[Status, ...] = ("failed", "out_of_memory")
_COLUMNS = (
    Column("stage"),
    Column("trial", least=20),
    Column("step", number=True),
    Column("losses", least=14, leaves=1),
    Column("time", number=True),
)


@dataclass
class _Running:
    """A stage that was given to the scheduler."""

    stage: Stage
    began: float | None = None
    """When a worker was first seen at it."""


class RunView:
    """Follows a scheduler's events; shows a live table on a terminal and plain lines elsewhere."""

    def __init__(
        self,
        stages: Sequence[Stage],
        cached: int,
        store: Store,
        slots: int,
        console: Console,
        *,
        later: Sequence[Stage] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`later` stages are waiting for another view; they count in the title and in the time left."""
        self._store = store
        self._console = console
        self._total = len(stages) + len(later)
        self._cached = cached
        self._ended: Counter[Status] = Counter()
        self._running: dict[str, _Running] = {}
        self._awaited = ""
        self._now = now
        self._started = now()
        self._lock = threading.Lock()
        """Guards the counts, the running stages and the estimate: the live table is drawn by a thread of its
        own. Never held while the console prints, which draws the table too."""
        self.time_left = TimeLeft(stages, store.timings(), slots, later)
        self._live: Live | None = None

    def __enter__(self) -> RunView:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self.table, console=self._console, refresh_per_second=4, transient=True
            )
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def on_wait(self, awaited: str) -> None:
        """Take note of what is awaited until a worker begins a stage."""
        with self._lock:
            self._awaited = awaited

    def on_event(self, event: Event) -> None:
        """Take note of a stage that started or ended."""
        if event.result is None:
            with self._lock:
                self._running[event.stage.key] = _Running(event.stage)
                self.time_left.started(event.stage)
            return
        with self._lock:
            self._count(event.stage, event.result)
        self._tell(event.stage, event.result)

    def table(self) -> FittedTable:
        """The run as it is now: counts and time left above, a line per running stage below."""
        with self._lock:
            keys = list(self._running)
        progress = {key: self._store.progress(key) for key in keys}
        with self._lock:
            now = self._now()
            shown = [(one, progress.get(key)) for key, one in self._running.items()]
            for one, said in shown:
                self._follow(one, said, now)
            table = FittedTable(_COLUMNS, self._title(now))
            for one, said in shown:
                table.add(*_cells(one, said or {}, now))
        return table

    def _follow(self, one: _Running, said: Mapping[str, Any] | None, now: float) -> None:
        """Note what a running stage says of itself; it says something as soon as a worker has it."""
        if said is None:
            return
        if one.began is None:
            one.began, self._awaited = now, ""
        self.time_left.follow(one.stage, now - one.began, said.get("step", 0), said.get("total", 0))

    def _count(self, stage: Stage, result: StageResult) -> None:
        self._running.pop(stage.key, None)
        self.time_left.ended(stage, result.seconds, result.status == "done")
        self._ended[result.status] += 1
        self._awaited = ""

    def _tell(self, stage: Stage, result: StageResult) -> None:
        from rich.text import Text

        what, lines = f"{stage.kind}: {stage.label}", self._live is None
        if result.status in _FAILED:
            said = Text.assemble(("failed", "red"), f" {what}: {result.reason}")
        elif lines and result.status == "done":
            said = Text(f"{self._ended.total()}/{self._total} {what}, {duration(result.seconds)}")
        else:
            return
        self._console.print(said, highlight=False, soft_wrap=lines)

    def _title(self, now: float) -> str:
        begun = sum(one.began is not None for one in self._running.values())
        failed = sum(self._ended[status] for status in _FAILED)
        waiting = self._total - self._ended.total() - begun
        counts = (
            f"{self._ended['done']} done, {begun} running, {failed} failed, "
            f"{self._cached + self._ended['cached']} cached, {waiting} waiting"
        )
        awaited = f" for {self._awaited}" if self._awaited else ""
        return f"{counts}{awaited}   {clock(now - self._started)} elapsed, {self._time_left()}"

    def _time_left(self) -> str:
        left = self.time_left.left()
        if left is None or (not left.is_whole and left.seconds < 1):
            return "time left unknown"
        # Rounded up: as long as something is open it is never 0:00.
        return f"{'' if left.is_whole else 'at least '}{clock(left.seconds + 0.999)} left"


def _cells(one: _Running, said: Mapping[str, Any], now: float) -> tuple[str, ...]:
    if one.began is None:
        return one.stage.kind, one.stage.label, "starting", "", ""
    step = f"{said['step']}/{said['total']}" if said.get("total") else ""
    losses = "  ".join(f"{name} {setting(float(loss))}" for name, loss in said.get("losses", {}).items())
    return one.stage.kind, one.stage.label, step, losses, clock(now - one.began)
