"""The search itself: asks a study for settings, runs their stages on a scheduler, follows what they report.

A try is one trial of the study: for every seed one path through the same stages as any run, ended by a score
on the tuning split or on synthetic images. Several tries are under way at once; a stage that two of them need
runs once. The driver alone talks to the study.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.execution.schedulers.base import (
    Event,
    OnNotice,
    OnWait,
    Scheduler,
    Work,
    no_notice,
    no_wait,
)
from harness.planning.expansion import quantized_trial
from harness.planning.plan import Plan, Trial
from harness.planning.stage_builder import StageBuilder
from harness.stages.base import RunContext, Stage
from harness.stages.facts import evaluation_facts
from harness.store import open_store
from harness.tuning import studies
from harness.tuning.objectives import quality_of, values_of
from harness.tuning.ownership import OWNER, Owners, asking
from harness.tuning.space import Space
from methods.bits import Bits

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import Trial as Asked

Ending = Literal["complete", "pruned", "failed", "late"]


@dataclass(frozen=True)
class Subject:
    """What is searched: one method with one engine on one backbone at one bit-width."""

    method: str
    engine: str
    backbone: str
    bits: Bits
    seeds: tuple[int, ...]
    """Seeds of every try, whose value is the mean over them."""
    objectives: tuple[str, ...]
    reference: Stage
    """The teacher's evaluation on the tuning split."""
    probe: Stage | None
    """Synthesis of the images that teacher and students answer; None where real accuracy counts."""


@dataclass(frozen=True)
class Limits:
    """When a search stops to ask."""

    trials: int
    """Trials of the study, those of earlier and of other processes included."""
    seconds: float | None = None
    """Wall-clock of the study, likewise; a try that ends later does not count."""
    jobs: int = 1
    """Tries under way at once, in this process."""


@dataclass
class Try:
    """One trial of the study on its way through the stages."""

    asked: Asked
    trials: tuple[Trial, ...]
    stages: Mapping[str, Stage]
    open_keys: set[str]
    """Stages that have not ended."""
    started: float
    reported: dict[int, float] = field(default_factory=dict)
    prune: bool = False

    @property
    def number(self) -> int:
        """The trial's number in its study."""
        return self.asked.number

    @property
    def watched(self) -> tuple[str, ...]:
        """Keys of the stages that are followed: those that train the first seed's student, in order."""
        return self.trials[0].training


@dataclass(frozen=True)
class Ended:
    """How a try ended."""

    tried: Try
    ending: Ending
    values: tuple[float, ...] = ()
    reason: str = ""


class Search:
    """Runs one study to its limits; the functions that begin with `on_` tell a driver what happens."""

    def __init__(
        self,
        study: Study,
        subject: Subject,
        space: Space,
        builder: StageBuilder,
        context: RunContext,
        owners: Owners,
        limits: Limits,
        *,
        on_end: Callable[[Ended], None],
        on_change: Callable[[], None],
        on_missing: Callable[[Sequence[Stage]], None],
        on_wait: OnWait = no_wait,
        on_notice: OnNotice = no_notice,
    ) -> None:
        self._study = study
        self._subject = subject
        self._space = space
        self._builder = builder
        self._context = context
        self._store = open_store(context.store)
        self._owners = owners
        self._limits = limits
        self._on_end = on_end
        self._on_change = on_change
        self._on_wait = on_wait
        self._on_notice = on_notice
        self._on_missing = on_missing
        self._distributions: dict[str, BaseDistribution] = studies.distributions(space)
        self._used_before = studies.seconds_used(study)
        self._start = time.monotonic()
        self.open: dict[int, Try] = {}
        """Tries under way, by trial number."""

    def run(self, scheduler: Scheduler) -> None:
        """Search until a limit is reached; an interrupted search leaves its running trials to be resumed."""
        studies.note_seconds(self._study, self._owners.id, 0.0)
        work = Work(
            (), self._context, self._on_event, self._refill, self._on_tick, self._on_wait, self._on_notice
        )
        scheduler.run(work)

    @property
    def seconds_used(self) -> float:
        """Seconds that the study was searched for, this process's included."""
        return self._used_before + time.monotonic() - self._start

    def _refill(self) -> Sequence[Stage]:
        """Missing stages of a new try; none when all are under way that may be."""
        while len(self.open) < self._limits.jobs and (asked := self._ask()) is not None:
            plan = plan_of(self._subject, self._space, self._builder, asked.params)
            missing = plan.missing(self._store)
            tried = Try(asked, plan.trials, plan.stages, {stage.key for stage in missing}, time.monotonic())
            self.open[tried.number] = tried
            self._on_change()
            if missing:
                self._on_missing(missing)
                return missing
            self._complete(tried)
        return ()

    def _ask(self) -> Asked | None:
        if self._is_late():
            return None
        with asking(self._context.store):
            if len(studies.counted(self._study)) >= self._limits.trials:
                return None
            asked = self._study.ask(self._distributions)
            asked.set_user_attr(OWNER, self._owners.id)
        return asked

    def _on_event(self, event: Event) -> None:
        if event.kind == "started" or event.result is None:
            self._on_change()
            return
        status, key = event.result.status, event.stage.key
        for tried in [t for t in self.open.values() if key in t.open_keys]:
            if status in ("done", "cached"):
                tried.open_keys.discard(key)
                if not tried.open_keys:
                    self._complete(tried)
            elif status == "stopped":
                late = self._is_late() and not tried.prune
                self._end(tried, "late" if late else "pruned", tuple(tried.reported.values())[-1:])
            else:
                self._end(tried, "failed", reason=f"{event.stage.kind}: {event.result.reason}")
        self._on_change()

    def _on_tick(self) -> None:
        """Hand reports on to the study; ask stages to stop that are not worth going on with."""
        late = self._is_late()
        for tried in self.open.values():
            open_ones = [key for key in tried.watched if key in tried.open_keys]
            if open_ones and len(self._subject.objectives) == 1:
                self._report(tried)
            if late or tried.prune:
                for key in open_ones:  # again at every tick: a stage that begins forgets what it was asked
                    self._store.ask_to_stop(key)
        self._on_change()

    def _report(self, tried: Try) -> None:
        for key in tried.watched:
            for step, value in self._store.reports(key).items():
                if step not in tried.reported:
                    tried.reported[step] = value
                    tried.asked.report(value, len(tried.reported))
        tried.prune = tried.prune or (bool(tried.reported) and tried.asked.should_prune())

    def _complete(self, tried: Try) -> None:
        found = [evaluation_facts(self._store, trial.evaluation) for trial in tried.trials]
        values = tuple(values_of(self._subject.objectives, found))
        if any(value != value for value in values):
            self._end(tried, "failed", reason=f"{quality_of(self._subject.objectives)} is not a number")
        else:
            self._end(tried, "late" if self._is_late() else "complete", values)

    def _end(self, tried: Try, ending: Ending, values: tuple[float, ...] = (), reason: str = "") -> None:
        from optuna.trial import TrialState

        del self.open[tried.number]
        asked = tried.asked
        asked.set_user_attr("seconds", round(time.monotonic() - tried.started, 3))
        if ending == "late":
            asked.set_user_attr(studies.LATE, True)
            reason = "the time budget ended before it did"
        if reason:
            asked.set_user_attr("reason", reason)
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        state = states.get(ending, TrialState.FAIL)
        told = list(values) if ending == "complete" else None
        self._study.tell(tried.number, told, state=state, skip_if_finished=True)
        studies.note_seconds(self._study, self._owners.id, time.monotonic() - self._start)
        self._on_end(Ended(tried, ending, values, reason))

    def _is_late(self) -> bool:
        return self._limits.seconds is not None and self.seconds_used >= self._limits.seconds


def plan_of(subject: Subject, space: Space, builder: StageBuilder, params: Mapping[str, Any]) -> Plan:
    """The plan of the try with these values of the space: a trial per seed, and the stages of all."""
    varied = builder.varied(subject.method, space.settings(params))
    varied.stages = {}
    probe = subject.probe

    def score(quantization: Stage) -> Stage:
        assert probe is not None
        return varied.agreement(subject.backbone, quantization, probe)

    trials = tuple(
        quantized_trial(
            varied,
            subject.method,
            subject.engine,
            subject.backbone,
            subject.bits,
            seed,
            subject.reference,
            split="synthetic" if probe else "tune",
            score=score if probe else None,
        )
        for seed in subject.seeds
    )
    return Plan(builder.suite, trials, varied.stages)
