"""The live view of a run: stages done, running, failed, cached; the running stages' losses; time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from harness.execution.schedulers.base import Event
from harness.stages.base import Stage
from harness.store import Store


class TimeLeft:
    """Estimates the seconds that remain from the stages seen so far, on this store and in this run."""

    def __init__(self, stages: Sequence[Stage], timings: dict[str, float], slots: int) -> None:
        self._open = {stage.key: stage for stage in stages}
        self._timings = dict(timings)
        self._slots = max(1, slots)
        self.seen: dict[str, float] = {}
        """New timings of this run, for the store."""

    def ended(self, stage: Stage, seconds: float, done: bool) -> None:
        """Note a stage that ended."""
        self._open.pop(stage.key, None)
        if done:
            self.seen[stage.timing_name] = seconds
            self._timings[stage.timing_name] = seconds

    def seconds(self, elapsed: dict[str, float]) -> float | None:
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
        if stage.timing_name in self._timings:
            return self._timings[stage.timing_name]
        same = [v for name, v in self._timings.items() if name.startswith(f"{stage.kind}:")]
        return sum(same) / len(same) if same else None


class RunView:
    """Follows a scheduler's events; shows a live table on a terminal and plain lines elsewhere."""

    def __init__(self, stages: Sequence[Stage], cached: int, store: Store, slots: int, console: Any) -> None:
        self._store = store
        self._console = console
        self._total = len(stages)
        self._cached = cached
        self._done = self._failed = self._skipped = 0
        self._running: dict[str, tuple[Stage, float]] = {}
        self._started = time.time()
        self.time_left = TimeLeft(stages, store.timings(), slots)
        self._live: Any = None

    def __enter__(self) -> RunView:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self._table, console=self._console, refresh_per_second=4, transient=True
            )
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def on_event(self, event: Event) -> None:
        """Take note of a stage that started or ended."""
        stage = event.stage
        if event.kind == "started":
            self._running[stage.key] = (stage, time.time())
            return
        assert event.result is not None
        self._running.pop(stage.key, None)
        status = event.result.status
        self.time_left.ended(stage, event.result.seconds, status == "done")
        self._done += status == "done"
        self._cached += status == "cached"
        self._skipped += status == "skipped"
        if status in ("failed", "out_of_memory"):
            self._failed += 1
            self._say(
                f"[red]failed[/red] {stage.kind}: {_escape(stage.label)}: {_escape(event.result.reason)}"
            )
        elif self._live is None and status == "done":
            count = self._done + self._failed + self._skipped
            self._say(
                f"{count}/{self._total} {stage.kind}: {_escape(stage.label)}, {event.result.seconds:.1f} s"
            )

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False)

    def _table(self) -> Any:
        from rich.table import Table

        elapsed = {key: time.time() - started for key, (_, started) in self._running.items()}
        left = self.time_left.seconds(elapsed)
        title = (
            f"{self._done} done, {len(self._running)} running, {self._failed} failed, {self._cached} cached, "
            f"{self._total - self._done - self._failed - self._skipped - len(self._running)} waiting"
            f"   {_clock(time.time() - self._started)} elapsed, "
            f"{_clock(left) if left is not None else 'time unknown'} left"
        )
        table = Table(title=title, title_justify="left", expand=False)
        for column in ("stage", "trial", "step", "losses", "time"):
            table.add_column(column, justify="right" if column in ("step", "time") else "left")
        for key, (stage, started) in self._running.items():
            progress = self._store.progress(key) or {}
            step = f"{progress['step']}/{progress['total']}" if progress else ""
            losses = "  ".join(f"{k} {v:.4g}" for k, v in progress.get("losses", {}).items())
            table.add_row(stage.kind, _escape(stage.label), step, losses, _clock(time.time() - started))
        return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
