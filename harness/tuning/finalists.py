"""The end of a search: its best tries and the settings before it are scored again, and one is chosen.

What is scored again are ordinary stages: cached, shared and run by the same scheduler as any.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.execution.ensure import ensure
from harness.execution.schedulers.base import Scheduler
from harness.planning.plan import Plan, missing_for
from harness.stages.facts import evaluation_facts
from harness.stages.kinds import is_made
from harness.store import open_store
from harness.tuning import studies
from harness.tuning.objectives import values_of
from harness.tuning.outcome import SELECTION, best_first, default_of, finished
from harness.tuning.preparation import Preparation
from harness.tuning.search import plan_of
from harness.tuning.selection import LEAST, count_of_finalists, successive_rejects

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from rich.console import Console


def choose(prepared: Preparation, study: Study, scheduler: Scheduler, console: Console) -> None:
    """Score the finalists again and keep in the study how they fared, where they can be told apart."""
    scorings = _affordable(prepared, study)
    finalists = _finalists(study, count_of_finalists(scorings))
    if len(finalists) < 2:
        return
    numbers = ", ".join(str(trial.number) for trial in finalists)
    console.print(f"scored again on further seeds, the best few: try {numbers}", markup=False)
    params = {trial.number: trial.params for trial in finalists}

    def score(left: Sequence[int], index: int) -> dict[int, float]:
        subject = dataclasses.replace(prepared.subject, seeds=prepared.further_seeds(index))
        plans = {n: plan_of(subject, prepared.space, prepared.builder, params[n]) for n in left}
        _make(plans, prepared, scheduler, console)
        return {number: _value(plan, prepared) for number, plan in plans.items()}

    values = {trial.number: trial.values[0] for trial in finalists}
    selection = successive_rejects(values, scorings, score)
    if math.isfinite(selection.mean):
        study.set_user_attr(SELECTION, selection.to_json())


def _affordable(prepared: Preparation, study: Study) -> int:
    """Scorings that are left of the budget; of one in seconds, as many as would fit by what tries took."""
    seconds, kept = prepared.options.seconds, prepared.kept_back
    if seconds is None or not kept:
        return kept
    took = [float(trial.user_attrs.get("seconds", 0.0)) for trial in finished(study)]
    if not took:
        return 0
    left = max(0.0, seconds - studies.seconds_used(study))
    fitting = int(left * prepared.limits.jobs / max(math.fsum(took) / len(took), 1e-3))
    return min(kept, fitting) if fitting >= LEAST else 0


def _finalists(study: Study, count: int) -> list[FrozenTrial]:
    """The settings before the search, which win a tie, and the best others; too few where tries failed."""
    default = default_of(study)
    first = [default] if default else []
    others = [trial for trial in best_first(study) if trial not in first]
    return (first + others)[:count]


def _make(plans: Mapping[int, Plan], prepared: Preparation, scheduler: Scheduler, console: Console) -> None:
    """Make what the store lacks of several tries; what fails is missing afterwards."""
    context = dataclasses.replace(prepared.context, watch=None)
    store = open_store(context.store)
    stages = {key: stage for plan in plans.values() for key, stage in plan.stages.items()}
    wanted = [trial.evaluation for plan in plans.values() for trial in plan.trials]
    ensure(missing_for(wanted, stages, store), context, store, scheduler, console)


def _value(plan: Plan, prepared: Preparation) -> float:
    """The try's value over the plan's seeds; minus infinity where one failed."""
    store = open_store(prepared.context.store)
    if not all(is_made(plan.stages[trial.evaluation], store) for trial in plan.trials):
        return -math.inf
    found = [evaluation_facts(store, trial.evaluation) for trial in plan.trials]
    (value,) = values_of(prepared.subject.objectives, found)
    return value if math.isfinite(value) else -math.inf
