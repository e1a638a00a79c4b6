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
from harness.stages.base import Claimant, RunContext, Stage, StageResult, Status
from harness.store import Store
from results.figures import clock, duration, setting
from results.tables import Column, FittedTable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

_LOOK_SECONDS = 1.0
"""Time between two looks at who makes the running stages."""
_DRAW_SECONDS = 0.25
"""Least time between two drawings of the live table."""
_PAUSES = 25
"""Least time between them, in CPU seconds of one: hundreds of running stages take no more of a core."""
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
        context: RunContext,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._claimant = context.claimant
        self._console = console
        self._total = len(stages)
        self._cached = cached
        self._ended: Counter[Status] = Counter()
        self._running: dict[str, _Running] = {}
        self._awaited = ""
        self._now = now
        self._started = now()
        self._lock = threading.Lock()
        """Guards the counts, the running stages and the estimate: the live table is drawn by a thread of its
        own. Never held while the console prints, which draws the table too."""
        self._expect: Callable[[str], TimeLeft] = lambda device: TimeLeft(
            stages, store.timings(), slots, device
        )
        self.time_left = self._expect(context.device)
        self._live: Live | None = None
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._tell_of_claims, daemon=True)]
        """One looks for whom stages wait: the process that waits, which may be this one, cannot say so. On a
        terminal another draws."""

    def __enter__(self) -> RunView:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self.table, console=self._console, auto_refresh=False, transient=True
            )
            self._live.__enter__()
            self._threads.append(threading.Thread(target=self._draw, args=(self._live,), daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def on_wait(self, awaited: str) -> None:
        """Take note of what is awaited until a worker begins a stage."""
        with self._lock:
            self._awaited = awaited

    def on_device(self, device: str) -> None:
        """Take note, before the first stage starts, of where they run: it says which timings are theirs."""
        with self._lock:
            self.time_left = self._expect(device)

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

    def say(self, sentence: str) -> None:
        """Print what a reader should know now, above the table."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def table(self) -> FittedTable:
        """The run as it is now: counts and time left above, a line per running stage below."""
        with self._lock:
            keys = {key: one.stage for key, one in self._running.items()}
        progress = {key: self._store.progress(key) for key in keys}
        elsewhere = {key: self._waiting_for(stage, "this stage") for key, stage in keys.items()}
        with self._lock:
            now = self._now()
            shown = [(key, one, progress.get(key)) for key, one in self._running.items()]
            for _, one, said in shown:
                self._follow(one, said, now)
            table = FittedTable(_COLUMNS, self._title(now))
            for key, one, said in shown:
                table.add(*_cells(one, said or {}, now, elsewhere.get(key, "")))
        return table

    def _draw(self, live: Live) -> None:
        """Draw the table again and again, as long as the view lives."""
        pause = _DRAW_SECONDS
        while not self._over.wait(pause):
            began = time.thread_time()
            live.refresh()
            pause = max(_DRAW_SECONDS, _PAUSES * (time.thread_time() - began))

    def _follow(self, one: _Running, said: Mapping[str, Any] | None, now: float) -> None:
        """Note what a running stage says of itself; it says something as soon as a worker has it."""
        if said is None:
            return
        if one.began is None:
            one.began, self._awaited = now, ""
        self.time_left.follow(one.stage, now - one.began, said.get("step", 0), said.get("total", 0))

    def _tell_of_claims(self) -> None:
        """A line for every stage that another process makes, as long as the view lives."""
        told: set[str] = set()
        while not self._over.wait(_LOOK_SECONDS):
            with self._lock:
                running = [one.stage for one in self._running.values()]
            for stage in running:
                sentence = self._waiting_for(stage, f"{stage.kind}: {stage.label}")
                if sentence and sentence not in told:
                    told.add(sentence)
                    self.say(sentence)

    def _waiting_for(self, stage: Stage, what: str) -> str:
        """Who makes a running stage, where it is not this run; empty where it is."""
        said = self._store.claimant(stage.key)
        holder = Claimant.of(said)
        if said is None or holder is None or holder == self._claimant:
            return ""
        since = time.strftime("%H:%M", time.localtime(said["since"]))
        return f"waiting for process {holder.process} on {holder.host}, which makes {what} since {since}"

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


def _cells(one: _Running, said: Mapping[str, Any], now: float, elsewhere: str) -> tuple[str, ...]:
    if one.began is None:
        return one.stage.kind, one.stage.label, "waiting" if elsewhere else "starting", elsewhere, ""
    step = f"{said['step']}/{said['total']}" if said.get("total") else ""
    losses = "  ".join(f"{name} {setting(float(loss))}" for name, loss in said.get("losses", {}).items())
    losses = elsewhere or losses
    return one.stage.kind, one.stage.label, step, losses, clock(now - one.began)
