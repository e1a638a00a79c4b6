"""Records of a plan's trials, put together from the store: the truth that tracking and leaderboards show."""

from __future__ import annotations

from typing import Any

from harness.errors import ArtifactError
from harness.planning.plan import Plan, Trial
from harness.store.artifacts import Store
from results.record import Record
from results.statistics import pack_outcomes, pack_scores

_AGREES_WITH_ITSELF = {"agreement": 100.0, "kl": 0.0}
"""What full precision has where it was measured, free of the rounding of stored outputs."""


def records_of(plan: Plan, store: Store) -> list[Record]:
    """One record per trial, in plan order; a trial without a result has status and reason instead."""
    references = {backbone: _meta(store, stage.key) for backbone, stage in plan.references().items()}
    return [_record(plan, trial, store, references.get(trial.backbone)) for trial in plan.trials]


def _record(plan: Plan, trial: Trial, store: Store, reference: dict[str, Any] | None) -> Record:
    meta = _meta(store, trial.evaluation)
    if meta is None:
        return Record(**trial.identity(), **_failure(plan, trial, store), protocol=dict(trial.protocol))
    metrics = dict(meta["metrics"])
    if trial.method == "fp32":
        metrics |= {name: exact for name, exact in _AGREES_WITH_ITSELF.items() if name in metrics}
    outcomes, scores = _per_image(store, trial.evaluation, meta["metric"])
    return Record(
        **trial.identity(),
        status="ok",
        metric=meta["metric"],
        metrics=metrics,
        images=meta["images"],
        outcomes=outcomes,
        scores=scores,
        samples_digest=meta["samples"],
        protocol=_protocol(trial, meta, reference),
        cost=meta["cost"],
        environment=meta["environment"],
        notes=tuple(meta["notes"]),
        finished_at=meta["finished_at"],
    )


def _protocol(trial: Trial, meta: dict[str, Any], reference: dict[str, Any] | None) -> dict[str, Any]:
    """The trial's protocol with what only a run can tell: calibration count and full-precision score."""
    own = meta if trial.method == "fp32" else None
    full_precision = (reference or own or {"metrics": {}})["metrics"].get(meta["metric"])
    return {
        **trial.protocol,
        "calibration_images": int(meta["cost"]["synthetic_images"]),
        "full_precision": None if full_precision is None else round(full_precision, 3),
        "evaluated_samples": meta["samples"][:16],
    }


def _failure(plan: Plan, trial: Trial, store: Store) -> dict[str, Any]:
    """Status and reason of the first stage of the trial that failed."""
    for key in filter(None, (trial.synthesis, trial.quantization, trial.evaluation)):
        failure = store.failure(key)
        if failure is not None:
            return {"status": failure["status"], "reason": f"{plan.stages[key].kind}: {failure['reason']}"}
    return {"status": "missing", "reason": "not run yet"}


def _per_image(store: Store, key: str, metric: str) -> tuple[dict[str, str], dict[str, str]]:
    """Every outcome that is right or wrong, and the ranking one where it is a number; packed."""
    prefix = "outcomes."
    values = {name[len(prefix) :]: v for name, v in store.tensors(key).items() if name.startswith(prefix)}
    real = {name: v for name, v in values.items() if v.dtype.is_floating_point}
    outcomes = {name: pack_outcomes(v.numpy()) for name, v in values.items() if name not in real}
    return outcomes, {name: pack_scores(v.numpy()) for name, v in real.items() if name == metric}


def _meta(store: Store, key: str) -> dict[str, Any] | None:
    try:
        return store.meta(key)
    except ArtifactError:
        return None
