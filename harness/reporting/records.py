"""Records of a plan's trials, put together from the store: the truth that tracking and leaderboards show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from harness.errors import ArtifactError, Damaged
from harness.planning.plan import Plan, Trial
from harness.stages.evaluate import OUTCOMES
from harness.stages.facts import EvaluationFacts, evaluation_facts
from harness.store import Store
from results.metrics import compared_with_itself
from results.record import Record, Status
from results.statistics import pack_outcomes, pack_scores


def records_of(plan: Plan, store: Store, trials: Sequence[Trial] | None = None) -> list[Record]:
    """One record per trial of the plan, or of these; one without a result has status and reason instead.

    What is damaged in the store costs the rows that need it.
    """
    trials = plan.trials if trials is None else trials
    if not trials:
        return []
    references = {backbone: _facts(store, stage.key) for backbone, stage in plan.references().items()}
    return [_record(plan, trial, store, references.get(trial.backbone)) for trial in trials]


def _record(plan: Plan, trial: Trial, store: Store, reference: EvaluationFacts | None) -> Record:
    try:
        facts = evaluation_facts(store, trial.evaluation)
        outcomes, scores = _per_image(store, trial.evaluation, facts.metric)
    except ArtifactError as error:
        is_damaged = isinstance(error, Damaged)
        why = {"status": "failed", "reason": str(error)} if is_damaged else _failure(plan, trial, store)
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


def _failure(plan: Plan, trial: Trial, store: Store) -> dict[str, Any]:
    """Status and reason of the first stage of the trial that failed."""
    making = [plan.stages[key] for key in trial.making]
    keys = [key for stage in making for key in (*stage.parents.values(), stage.key)]  # with shards of sets
    for key in (*keys, trial.evaluation):
        failure = store.failure(key)
        if failure is not None:
            status = failure["status"] if failure["status"] in get_args(Status) else "failed"
            return {"status": status, "reason": f"{plan.stages[key].kind}: {failure['reason']}"}
    return {"status": "missing", "reason": "not run yet"}


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
