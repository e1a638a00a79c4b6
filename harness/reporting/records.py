"""Records of a plan's trials, put together from the store: the truth that tracking and leaderboards show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from harness.errors import ArtifactError, Damaged
from harness.planning.plan import Plan, Trial, needs_of
from harness.stages.evaluate import OUTCOMES
from harness.stages.facts import EvaluationFacts, evaluation_facts
from harness.store import Store
from results.metrics import compared_with_itself
from results.record import Record, Status
from results.statistics import pack_outcomes, pack_scores

Needs = Mapping[str, Sequence[str]]
"""Key of a stage -> keys of what it needs to be made."""


def records_of(plan: Plan, store: Store) -> list[Record]:
    """One record per trial, in plan order; a trial without a result has status and reason instead.

    What is damaged in the store costs the rows that need it.
    """
    return trial_records(plan.trials, needs_of(plan), store)


def trial_records(trials: Sequence[Trial], needs: Needs, store: Store) -> list[Record]:
    """One record per trial of one plan, as `records_of`; `needs` are those of the plan's stages."""
    records = TrialRecords(trials, needs, store)
    return [records.of(trial) for trial in trials]


class TrialRecords:
    """Makes records of one plan's trials, one by one, as the store has them then."""

    def __init__(self, trials: Sequence[Trial], needs: Needs, store: Store) -> None:
        self._store = store
        self._references = {trial.backbone: trial.evaluation for trial in trials if trial.method == "fp32"}
        self._known: dict[str, EvaluationFacts] = {}
        scores = {trial.evaluation for trial in trials}  # a student waits for its reference, which has a row
        self._needs = {key: [one for one in needed if one not in scores] for key, needed in needs.items()}

    def of(self, trial: Trial) -> Record:
        """The record of one of the trials."""
        return _record(trial, self._needs, self._store, self._reference(trial.backbone))

    def _reference(self, backbone: str) -> EvaluationFacts | None:
        key = self._references.get(backbone, "")
        if key and key not in self._known and (facts := _facts(self._store, key)) is not None:
            self._known[key] = facts
        return self._known.get(key)


def _record(trial: Trial, needs: Needs, store: Store, reference: EvaluationFacts | None) -> Record:
    try:
        facts = evaluation_facts(store, trial.evaluation)
        outcomes, scores = _per_image(store, trial.evaluation, facts.metric)
    except ArtifactError as error:
        is_damaged = isinstance(error, Damaged)
        why = {"status": "failed", "reason": str(error)} if is_damaged else _failure(trial, needs, store)
        return Record(**trial.identity(), **why, protocol=dict(trial.protocol))
    metrics = dict(facts.metrics)
    if trial.method == "fp32":
        metrics |= {name: exact for name, exact in compared_with_itself().items() if name in metrics}
    return Record(
        **trial.identity(),
        status="ok",
        metric=facts.metric,
        metrics=metrics,
        images=facts.images,
        outcomes=outcomes,
        scores=scores,
        samples_digest=facts.samples,
        protocol=_protocol(trial, facts, reference),
        cost=facts.costs(),
        cost_devices=facts.cost.devices,
        gradient_shares=facts.gradient_shares,
        environment=facts.environment.as_text(),
        notes=(*trial.notes, *facts.notes),
        finished_at=facts.finished_at,
    )


def _protocol(trial: Trial, facts: EvaluationFacts, reference: EvaluationFacts | None) -> dict[str, Any]:
    """The trial's protocol with what only a run can tell: calibration count and full-precision score."""
    teacher = reference or (facts if trial.method == "fp32" else None)
    full_precision = teacher.metrics.get(facts.metric) if teacher else None
    return {
        **trial.protocol,
        "calibration_images": facts.synthetic_images,
        "full_precision": None if full_precision is None else round(full_precision, 3),
        "evaluated_samples": facts.samples[:16],
    }


def _failure(trial: Trial, needs: Needs, store: Store) -> dict[str, Any]:
    """Status and reason of the first stage of the trial that failed."""
    keys = [key for made in trial.making for key in (*needs.get(made, ()), made)]
    for key in (*keys, trial.evaluation):
        failure = store.failure(key)
        if failure is not None:
            status = failure["status"] if failure["status"] in get_args(Status) else "failed"
            return {"status": status, "reason": f"{_kind(trial, key)}: {failure['reason']}"}
    return {"status": "missing", "reason": "not run yet"}


def _kind(trial: Trial, key: str) -> str:
    """Kind of one of the stages that a trial consists of."""
    if key == trial.evaluation:
        return "agree" if trial.split == "synthetic" else "evaluate"
    if key == trial.quantization:
        return "quantize"
    if key in trial.making:
        return "train" if key in trial.training else "synthesize"
    return "shard"


def _per_image(store: Store, key: str, metric: str) -> tuple[dict[str, str], dict[str, str]]:
    """Every outcome that is right or wrong, and the ranking one where it is a number; packed."""
    values = {name.removeprefix(OUTCOMES): v for name, v in store.arrays(key, OUTCOMES).items()}
    real = {name: v for name, v in values.items() if v.dtype.kind == "f"}
    outcomes = {name: pack_outcomes(v) for name, v in values.items() if name not in real}
    return outcomes, {name: pack_scores(v) for name, v in real.items() if name == metric}


def _facts(store: Store, key: str) -> EvaluationFacts | None:
    try:
        return evaluation_facts(store, key)
    except ArtifactError:
        return None
