"""Optuna studies: who may join them, what their trials are called, and which of them count.

What a process that died has left running is ended and its parameters are queued again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import UsageError
from harness.tuning.ownership import OWNER, Owners
from harness.tuning.space import Dimension, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

SAMPLERS = ("tpe", "gp", "random", "grid", "nsga2")
PRUNERS = ("none", "median", "hyperband")
SUBJECT = "subject"
"""Study attribute: what is searched, so that another search under the same name is refused."""
AGAIN = "again"
"""Trial attribute: number of the interrupted trial whose parameters it repeats."""
DEFAULT = "default"
"""Trial attribute: true for the settings before the search."""
LATE = "late"
"""Trial attribute: true where the time budget ended before the trial did; such a trial does not count."""
_SECONDS = "seconds."
"""Prefix of the study attributes that hold how long each process has searched."""
_STARTUP_TRIALS = 5
_BRIEF = 60
"""Letters of a value that an error shows."""


def open_study(
    storage: BaseStorage,
    name: str,
    subject: Mapping[str, Any],
    objectives: Mapping[str, Literal["minimize", "maximize"]],
    *,
    sampler: Callable[[int], BaseSampler],
    pruner: BasePruner,
    resume: bool,
) -> Study:
    """A new study, or with `resume` the one of that name; raises UsageError when that cannot be.

    `objectives` are the names of what is minimised or maximised, as Optuna's dashboard shows them. `subject`
    says what is searched, in plain JSON; a study of another subject is refused. `sampler` is told how many
    processes searched before: this one must not draw the same random settings again.
    """
    import optuna

    directions = list(objectives.values())
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, directions=directions, sampler=sampler(0), pruner=pruner
        )
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
        study.sampler = sampler(_processes(study))
        _refuse_other_subject(study, subject)
        if not resume and study.trials:
            raise UsageError(
                f"study '{name}' is there with {len(study.trials)} trials: give --resume to go on "
                "with it, or --study NAME for a new one"
            ) from None
    if SUBJECT not in study.user_attrs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # marked experimental
            study.set_metric_names(list(objectives))
        study.set_user_attr(SUBJECT, dict(subject))
    return study


def _refuse_other_subject(study: Study, subject: Mapping[str, Any]) -> None:
    known = study.user_attrs.get(SUBJECT, subject)
    differing = [key for key in {**known, **subject} if known.get(key) != subject.get(key)]
    if differing:
        what = "; ".join(_difference(key, known.get(key), subject.get(key)) for key in differing)
        raise UsageError(f"study '{study.study_name}' is another search ({what}): give --study NAME")


def _difference(key: str, known: Any, now: Any) -> str:
    if max(len(str(known)), len(str(now))) > _BRIEF:
        return f"its {key} differs"
    return f"its {key} is {known}, now {now}"


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space in Optuna's terms."""
    return {dimension.name: _distribution(dimension) for dimension in space.dimensions}


def _distribution(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.integer:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(float(dimension.low), float(dimension.high), log=dimension.log)


def make_sampler(name: str, seed: int, jobs: int) -> BaseSampler:
    """The sampler of that name; a grid's points are queued one by one, so nothing is left to sample."""
    from optuna import samplers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are marked experimental
        if name == "tpe":
            return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=jobs > 1)
        if name == "gp":
            return samplers.GPSampler(seed=seed)
        if name == "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=20)
        return samplers.RandomSampler(seed=seed)


def make_pruner(name: str, reports: int) -> BasePruner:
    """The pruner of that name for values that come at most `reports` times per trial."""
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=0)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=reports, reduction_factor=3)
    return pruners.NopPruner()


def queue_first(study: Study, space: Space, grid: Sequence[Mapping[str, Any]] = ()) -> None:
    """Queue the settings before the search, then a grid's points; those that are known are not queued again.

    A setting whose value before the search lies outside of a narrowed range is drawn instead.
    """
    inside = {d.name: d.default for d in space.dimensions if d.holds(d.default)}
    is_default = {DEFAULT: True} if len(inside) == len(space.dimensions) else {}
    study.enqueue_trial(inside, user_attrs=is_default, skip_if_exists=True)
    for point in grid:
        study.enqueue_trial(dict(point), skip_if_exists=True)


def queue_interrupted(study: Study, owners: Owners) -> list[int]:
    """End the running trials of owners that are gone and queue their parameters again; their numbers.

    Call it while `asking`: a trial without owner then belongs to a process that died before it signed.
    """
    from optuna.trial import TrialState

    numbers = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(OWNER)
        if owner is not None and not owners.is_gone(owner):
            continue
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        fixed = trial.system_attrs.get("fixed_params", {})
        kept = {key: trial.user_attrs[key] for key in (DEFAULT,) if key in trial.user_attrs}
        study.enqueue_trial({**fixed, **trial.params}, user_attrs={AGAIN: trial.number, **kept})
        numbers.append(trial.number)
    return numbers


def counted(study: Study) -> list[FrozenTrial]:
    """Trials that used the budget: finished ones, pruned and failed included, and running ones."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get(AGAIN) for trial in trials}
    return [
        trial
        for trial in trials
        if trial.state != TrialState.WAITING
        and not trial.user_attrs.get(LATE)
        and not (trial.state == TrialState.FAIL and trial.number in repeated)
    ]


def ended(study: Study) -> list[FrozenTrial]:
    """The trials of `counted` that run no more."""
    return [trial for trial in counted(study) if trial.state.is_finished()]


def ended_here(study: Study, owners: Owners) -> list[int]:
    """Numbers of the trials that ended and were not repeated, without those of other living processes."""
    repeated = {trial.user_attrs.get(AGAIN) for trial in study.get_trials(deepcopy=False)}
    return [
        trial.number
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
        and trial.number not in repeated
        and ((owner := trial.user_attrs.get(OWNER)) == owners.id or (owner and owners.is_gone(owner)))
    ]


def seconds_used(study: Study) -> float:
    """Seconds that all processes have searched in this study."""
    return sum(float(v) for key, v in study.user_attrs.items() if key.startswith(_SECONDS))


def note_seconds(study: Study, owner: str, seconds: float) -> None:
    """Say how long this process has searched."""
    study.set_user_attr(f"{_SECONDS}{owner}", seconds)


def _processes(study: Study) -> int:
    return sum(key.startswith(_SECONDS) for key in study.user_attrs)
