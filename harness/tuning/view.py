"""What a person sees of a running search: its best and running tries as a live table, or a line per try."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.store import Store
from harness.tuning.search import Ended, Try
from harness.tuning.space import Space

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

_SHOWN = 10
"""Ended tries in the live table, the best first."""
_CHANGES = 4
"""Settings of a try that a line names."""


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
    ) -> None:
        self._title = title
        self._objectives = objectives
        self._sign = -1 if directions[0] == "maximize" else 1
        self._space = space
        self._store = store
        self._console = console
        self._ended: list[Ended] = []
        self._running: Mapping[int, Try] = {}
        self._started = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> SearchView:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self._table, console=self._console, refresh_per_second=2, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def follow(self, running: Mapping[int, Try]) -> None:
        """Look at the running tries from now on."""
        self._running = running

    def on_end(self, ended: Ended) -> None:
        """Take note of a try that ended."""
        self._ended.append(ended)
        if self._live is None:
            self._console.print(
                f"try {ended.tried.number} {self._outcome(ended)}, "
                f"{time.monotonic() - ended.tried.started:.1f} s: {self._changes(ended.tried)}",
                markup=False,
                soft_wrap=True,
            )

    def say(self, sentence: str) -> None:
        """Print what a reader should know now."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"{self._title}, {self._clock()}", title_justify="left")
        for column in ("try", "state", ", ".join(self._objectives), "seconds", "changed settings"):
            table.add_column(column)
        for tried in self._running.values():
            table.add_row(
                str(tried.number),
                f"running {self._step(tried)}",
                _last(tried.reported),
                f"{time.monotonic() - tried.started:.0f}",
                escape(self._changes(tried)),
            )
        best = sorted(
            self._ended, key=lambda e: (e.ending != "complete", *[self._sign * v for v in e.values[:1]])
        )
        for ended in best[:_SHOWN]:
            values = ", ".join(f"{value:.2f}" for value in ended.values)
            row = (str(ended.tried.number), ended.ending, values, "", self._changes(ended.tried))
            table.add_row(*row[:-1], escape(row[-1]))
        return table

    def _step(self, tried: Try) -> str:
        progress = self._store.progress(tried.watched)
        return f"{progress['step']}/{progress['total']}" if progress else ""

    def _outcome(self, ended: Ended) -> str:
        values = ", ".join(
            f"{name} {value:.2f}" for name, value in zip(self._objectives, ended.values, strict=False)
        )
        return " ".join(part for part in (ended.ending, values, ended.reason) if part)

    def _changes(self, tried: Try) -> str:
        """The first settings that differ from those before the search, without their owner."""
        defaults = self._space.defaults
        changed = {n: v for n, v in tried.asked.params.items() if v != defaults[n]}
        if not changed:
            return "the settings before the search"
        parts = [f"{name.rpartition('.')[2]} {_short(value)}" for name, value in changed.items()]
        more = f" and {len(parts) - _CHANGES} more" if len(parts) > _CHANGES else ""
        return ", ".join(parts[:_CHANGES]) + more

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{len(self._ended)} ended, {len(self._running)} running, {minutes}:{seconds:02} elapsed"


def _last(reported: Mapping[int, float]) -> str:
    return f"{list(reported.values())[-1]:.2f} so far" if reported else ""


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
