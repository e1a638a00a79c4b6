"""What a person sees of a running search: its best and running tries as a live table, or a line per try."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.store import Store
from harness.tuning.search import Ended, Limits, Try
from harness.tuning.space import Space
from results.figures import clock, duration, fixed, setting
from results.tables import Column, FittedTable

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from rich.console import Console
    from rich.live import Live

_SHOWN = 10
"""Ended tries in the live table, the best first."""
_CHANGES = 4
"""Settings of a try that a line names."""


@dataclass(frozen=True)
class _Running:
    """A running try as it was when the search last spoke of it: the search changes its own while we draw."""

    number: int
    started: float
    changes: str
    last: str
    """The last value that it reported; empty before the first."""
    stages: tuple[tuple[str, str], ...]
    """Kind and key of the stages that have not ended."""


class SearchView:
    """Follows a search; on a terminal a live table, elsewhere a line for every try that ends."""

    def __init__(
        self,
        title: str,
        objectives: Sequence[str],
        directions: Sequence[str],
        space: Space,
        store: Store,
        console: Console,
        *,
        limits: Limits,
        ended: Sequence[FrozenTrial] = (),
        seconds_before: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ended` are the tries of the study that ended before; `seconds_before` is what they took."""
        self._title = title
        self._objectives = objectives
        self._sign = -1 if directions[0] == "maximize" else 1
        self._space = space
        self._store = store
        self._console = console
        self._limits = limits
        self._seconds_before = seconds_before
        self._now = now
        self._started = now()
        self._lock = threading.Lock()
        """Guards what follows: the live table is drawn by a thread of its own. Never held while the console
        prints, which draws the table too."""
        self._ended = tuple(ended)
        self._running: tuple[_Running, ...] = ()
        self._awaited = ""
        self._live: Live | None = None

    def __enter__(self) -> SearchView:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self.table, console=self._console, refresh_per_second=2, transient=True
            )
            self._live.start()
        elif self._ended:
            self._console.print(f"going on: {self._standing()}", markup=False, soft_wrap=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def on_wait(self, awaited: str) -> None:
        """Take note of what is awaited until a worker begins a stage."""
        with self._lock:
            self._awaited = awaited

    def follow(self, running: Mapping[int, Try]) -> None:
        """Take note of how the running tries are now; to be called by the thread that changes them."""
        seen = tuple(map(self._seen, running.values()))
        with self._lock:
            self._running = seen

    def on_end(self, ended: Ended, study_ended: Sequence[FrozenTrial]) -> None:
        """Take note of a try that ended, and of all that have in the study, which processes may share."""
        with self._lock:
            self._ended = tuple(study_ended)
            self._awaited = ""
        if self._live is None:
            self._console.print(
                f"{self._count()}: try {ended.tried.number} {self._outcome(ended)}, "
                f"{duration(self._now() - ended.tried.started)}: {self._changes(ended.tried.asked.params)}",
                markup=False,
                soft_wrap=True,
            )

    def say(self, sentence: str) -> None:
        """Print what a reader should know now."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def table(self) -> FittedTable:
        """The search as it is now: what counts above, running tries and the best ended ones below."""
        with self._lock:
            running, ended = self._running, self._ended
        steps = [self._step(one) for one in running]
        with self._lock:
            if any(step is not None for step in steps):
                self._awaited = ""
            awaited = f", waiting for {self._awaited}" if self._awaited else ""
        columns = (
            Column("try", number=True),
            Column("state", least=14),
            Column(", ".join(self._objectives), number=True),
            Column("time", number=True, leaves=1),
            Column("changed settings", least=20),
        )
        under_way = f"{len(running)} running{awaited}, {self._time()}"
        table = FittedTable(columns, f"{self._title}: {self._standing()}, {under_way}")
        for one, step in zip(running, steps, strict=True):
            state = "starting" if step is None else f"running {step}".strip()
            table.add(str(one.number), state, one.last, clock(self._now() - one.started), one.changes)
        for trial in sorted(ended, key=self._rank)[:_SHOWN]:
            seconds = trial.user_attrs.get("seconds")
            table.add(
                str(trial.number),
                _state(trial),
                ", ".join(fixed(value, 2) for value in trial.values or ()),
                "" if seconds is None else clock(seconds),
                self._changes(trial.params),
            )
        return table

    def _rank(self, trial: FrozenTrial) -> tuple[float, ...]:
        """Finished tries before others, the best first."""
        values = [self._sign * value for value in (trial.values or ())[:1]]
        return (float(_state(trial) != "complete"), *values, trial.number)

    def _seen(self, tried: Try) -> _Running:
        stages = tuple((s.kind, key) for key, s in tried.stages.items() if key in tried.open_keys)
        return _Running(
            tried.number, tried.started, self._changes(tried.asked.params), _last(tried.reported), stages
        )

    def _step(self, one: _Running) -> str | None:
        """What a worker does for the try: `quantize 30/200`; None while none has begun."""
        for kind, key in one.stages:
            progress = self._store.progress(key)
            if progress is not None:
                return f"{kind} {progress['step']}/{progress['total']}" if progress.get("total") else kind
        return None

    def _standing(self) -> str:
        """`12 of 24 tries ended, best accuracy 97.20 (try 5)`."""
        best = next((t for t in sorted(self._ended, key=self._rank) if _state(t) == "complete"), None)
        if best is None:
            return f"{self._count()} tries ended"
        return f"{self._count()} tries ended, best {self._valued(best.values)} (try {best.number})"

    def _count(self) -> str:
        return f"{len(self._ended)} of {self._limits.trials}"

    def _valued(self, values: Sequence[float]) -> str:
        return ", ".join(f"{n} {fixed(v, 2)}" for n, v in zip(self._objectives, values, strict=False))

    def _outcome(self, ended: Ended) -> str:
        return " ".join(part for part in (ended.ending, self._valued(ended.values), ended.reason) if part)

    def _changes(self, params: Mapping[str, Any]) -> str:
        """The first settings that differ from those before the search, without their owner."""
        defaults = self._space.defaults
        changed = {name: value for name, value in params.items() if value != defaults.get(name)}
        if not changed:
            return "the settings before the search"
        parts = [f"{name.rpartition('.')[2]} {setting(value)}" for name, value in changed.items()]
        more = f" and {len(parts) - _CHANGES} more" if len(parts) > _CHANGES else ""
        return ", ".join(parts[:_CHANGES]) + more

    def _time(self) -> str:
        seconds = self._now() - self._started
        if self._limits.seconds is None:
            return f"{clock(seconds)} elapsed"
        return f"{clock(self._seconds_before + seconds)} of {clock(self._limits.seconds)} searched"


def _state(trial: FrozenTrial) -> str:
    state = trial.state.name.lower()
    return "failed" if state == "fail" else state


def _last(reported: Mapping[int, float]) -> str:
    return f"{fixed(list(reported.values())[-1], 2)} so far" if reported else ""
