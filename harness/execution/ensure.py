"""Makes what the store lacks: stages run under a live view, and what they took serves the next estimate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.execution.progress_view import RunView
from harness.execution.schedulers.base import Event, Scheduler, Work
from harness.planning.plan import missing_for
from harness.planning.run_context import cores
from harness.stages.base import RunContext, Stage, StageResult
from harness.stages.kinds import is_made
from harness.store import Store

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Gate:
    """What has to be known before a student is worked on."""

    keys: frozenset[str]
    """Stages after which it is known."""
    check: Callable[[], None]
    """Called once, when all of them have ended; raises where the run must not go on."""


def ensure(
    stages: Sequence[Stage],
    context: RunContext,
    store: Store,
    scheduler: Scheduler,
    console: Console,
    *,
    cached: int = 0,
    gate: Gate | None = None,
    on_ended: Callable[[Stage], None] | None = None,
) -> dict[str, StageResult]:
    """Run those stages that the store lacks; how each of them ended, by key.

    `on_ended` is told of each as it ends, well or not.

    The scheduler is used only if there are any. The view counts `cached` further stages as there already.
    With a `gate` those stages that nobody trains in run at first; see `Gate`.
    """
    missing = [stage for stage in stages if not is_made(stage, store)]
    if not missing:
        return {}
    say_damaged(missing, store, console)
    slots = max(1, cores() // context.threads)
    for stage in missing:
        store.clear_progress(stage.key)  # left by a process that was killed; one that lives says it anew
    view = RunView(missing, cached + len(stages) - len(missing), store, slots, console, context)

    def on_event(event: Event) -> None:
        view.on_event(event)
        if on_ended is not None and event.kind == "ended":
            on_ended(event.stage)

    with view:
        try:
            work = Work(
                missing,
                context,
                on_event,
                on_wait=view.on_wait,
                on_notice=view.say,
                on_device=view.on_device,
            )
            return scheduler.run(work if gate is None else _gated(work, gate))
        finally:
            store.add_timings(view.time_left.seen)


def _gated(work: Work, gate: Gate) -> Work:
    """The same work; all but first images waits for what the gate waits for, and for its check.

    What the check raises ends the scheduler's run.
    """
    waited_for = [stage for stage in work.stages if stage.key in gate.keys]
    left = {stage.key for stage in waited_for}
    held = tuple(left)

    def behind(stage: Stage) -> Stage:
        is_beside = stage.kind in ("synthesize", "shard") and not stage.parents
        return stage if is_beside else replace(stage, after=(*stage.after, *held))

    def on_event(event: Event) -> None:
        work.on_event(event)
        if event.kind == "ended" and event.stage.key in left:
            left.remove(event.stage.key)
            if not left:
                gate.check()

    others = [behind(stage) for stage in work.stages if stage.key not in gate.keys]
    return replace(work, stages=[*waited_for, *others], on_event=on_event)


def say_damaged(missing: Sequence[Stage], store: Store, console: Console) -> None:
    """Name those of the missing stages of which something lies in the store that cannot be used."""
    for stage in missing:
        # Looked at again: another process may have made it since.
        if store.place(stage.key).exists() and not is_made(stage, store):
            console.print(f"artifact {stage.key} ({stage.label}) is damaged and is made anew", markup=False)


def require(
    stage: Stage,
    context: RunContext,
    store: Store,
    scheduler: Scheduler,
    console: Console,
    *,
    among: Mapping[str, Stage] | None = None,
) -> None:
    """Make one stage's artifact where the store lacks it; raises HarnessError with the reason it failed.

    `among` are the stages, by key, of which those are made first that it needs.
    """
    stages = among or {stage.key: stage}
    missing = missing_for([stage.key], stages, store)
    for result in ensure(missing, context, store, scheduler, console).values():
        if result.status not in ("done", "cached"):
            raise HarnessError(f"{stages[result.key].label}: {result.reason}")
