"""The live view of a run: stages done, running, failed, cached; the running stages' losses; time left."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from harness.execution.schedulers.base import Event
from harness.stages.base import Claimant, RunContext, Stage, StageResult, Status
from harness.store import Store

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

_LOOK_SECONDS = 1.0
"""Time between two looks at who makes the running stages."""
_FAILED: tuple[Status, ...] = ("failed", "out_of_memory")


class TimeLeft:
    """Estimates the seconds that remain from the stages seen so far, on this store and in this run."""

    def __init__(
        self, stages: Sequence[Stage], timings: Mapping[str, float], slots: int, device: str
    ) -> None:
        self._device = device
        self._open = {stage.key: stage for stage in stages}
        self._timings = dict(timings)
        self._slots = max(1, slots)
        self.seen: dict[str, float] = {}
        """New timings of this run, for the store."""

    def ended(self, stage: Stage, seconds: float, done: bool) -> None:
        """Note a stage that ended; only one that is `done` says how long such a stage takes."""
        self._open.pop(stage.key, None)
        if done:
            name = stage.timing_name(self._device)
            self.seen[name] = self._timings[name] = seconds

    def seconds(self, elapsed: Mapping[str, float]) -> float | None:
        """Seconds left, given how long each running stage has run; None while nothing is known."""
        known = [self.expected(stage) for stage in self._open.values()]
        if self._open and all(value is None for value in known):
            return None
        left = 0.0
        for stage, value in zip(self._open.values(), known, strict=True):
            left += max(0.0, (value or 0.0) - elapsed.get(stage.key, 0.0))
        return left / self._slots

    def expected(self, stage: Stage) -> float | None:
        """Seconds a stage of this name took last, else the mean of its kind, else None."""
        if (name := stage.timing_name(self._device)) in self._timings:
            return self._timings[name]
        same = [v for name, v in self._timings.items() if name.startswith(f"{stage.kind}:")]
        return sum(same) / len(same) if same else None


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
    ) -> None:
        self._store = store
        self._claimant = context.claimant
        self._console = console
        self._total = len(stages)
        self._cached = cached
        self._ended: Counter[Status] = Counter()
        self._running: dict[str, tuple[Stage, float]] = {}
        self._started = time.time()
        self._lock = threading.Lock()
        """Guards the counts, the running stages and the estimate: the live table is drawn by a thread of its
        own. Never held while the console prints, which draws the table too."""
        self.time_left = TimeLeft(stages, store.timings(), slots, context.device)
        self._live: Live | None = None
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._tell_of_claims, daemon=True)
        """Looks for whom stages wait: the process that waits, which may be this one, cannot say so."""

    def __enter__(self) -> RunView:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self.table, console=self._console, refresh_per_second=4, transient=True
            )
            self._live.__enter__()
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watch.join()
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def on_event(self, event: Event) -> None:
        """Take note of a stage that started or ended."""
        if event.result is None:
            with self._lock:
                self._running[event.stage.key] = (event.stage, time.time())
            return
        with self._lock:
            self._count(event.stage, event.result)
        self._tell(event.stage, event.result)

    def say(self, sentence: str) -> None:
        """Print what a reader should know now, above the table."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def table(self) -> Table:
        """The run as it is now: counts and time left above, a line per running stage below."""
        from rich.table import Table

        now = time.time()
        with self._lock:
            running, title = dict(self._running), self._title(now)
        table = Table(title=title, title_justify="left", expand=False)
        for column in ("stage", "trial", "step", "losses", "time"):
            table.add_column(column, justify="right" if column in ("step", "time") else "left")
        for key, (stage, started) in running.items():
            progress = self._store.progress(key) or {}
            step = f"{progress['step']}/{progress['total']}" if progress else ""
            losses = "  ".join(f"{name} {loss:.4g}" for name, loss in progress.get("losses", {}).items())
            losses = self._waiting_for(stage, "this stage") or losses
            table.add_row(stage.kind, _escape(stage.label), step, losses, _clock(now - started))
        return table

    def _tell_of_claims(self) -> None:
        """Off a terminal, a line for every stage that another process makes, as long as the view lives."""
        told: set[str] = set()
        while not self._over.wait(_LOOK_SECONDS):
            with self._lock:
                running = [stage for stage, _ in self._running.values()]
            for stage in running:
                sentence = self._waiting_for(stage, f"{stage.kind}: {stage.label}")
                if sentence and sentence not in told and self._live is None:
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

    def _tell(self, stage: Stage, result: StageResult) -> None:
        what = f"{stage.kind}: {_escape(stage.label)}"
        if result.status in _FAILED:
            self._console.print(f"[red]failed[/red] {what}: {_escape(result.reason)}", highlight=False)
        elif self._live is None and result.status == "done":
            count = f"{self._ended.total()}/{self._total}"
            self._console.print(f"{count} {what}, {result.seconds:.1f} s", highlight=False)

    def _title(self, now: float) -> str:
        elapsed = {key: now - started for key, (_, started) in self._running.items()}
        left = self.time_left.seconds(elapsed)
        failed = sum(self._ended[status] for status in _FAILED)
        waiting = self._total - self._ended.total() - len(self._running)
        return (
            f"{self._ended['done']} done, {len(self._running)} running, {failed} failed, "
            f"{self._cached + self._ended['cached']} cached, {waiting} waiting"
            f"   {_clock(now - self._started)} elapsed, "
            f"{_clock(left) if left is not None else 'time unknown'} left"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
