"""The stage `evaluate`: scores a student on a task's split, or the teacher itself for the reference."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harness.stages.base import Artifact, RunContext, Stage
from harness.stages.cost import Measured, cost_of, environment, measured
from harness.stages.data_guard import no_data
from harness.stages.facts import Cost, EvaluationFacts, StudentFacts, student_facts
from harness.stages.progress import StageProgress
from harness.stages.rebuild import stored_student, task_of, teacher_of
from harness.store import Store
from tasks.base import EvaluationOptions

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.base import Evaluation, SplitFacts, Task

OUTCOMES = "outcomes."
"""What the names of the per-image values begin with, among an evaluation's tensors."""


def evaluate(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """Score the parent `student` beside the parent `reference`, the teacher on the same images.

    Without a student the teacher is scored, and its outputs are kept to be a reference. Raises ValueError
    when the data changed since the run was planned.
    """
    teacher = teacher_of(stage, context)
    settings = stage.settings
    task = task_of(settings["task"], context)
    split = task.facts(settings["split"])
    if split.digest != settings["samples"]:
        raise ValueError(f"the {settings['task']} data changed since the run was planned")
    model, reference, parent = teacher.model, None, None
    if "student" in stage.parents:
        parent = student_facts(store, stage.parents["student"])
        with no_data(context):
            model = stored_student(store, stage.parents["student"], teacher)
        reference = store.tensors(stage.parents["reference"])["outputs"].float()
    with measured(context.device) as cost:
        found = task.evaluate(
            model,
            teacher,
            settings["split"],
            EvaluationOptions(
                reference, context.images_at_once, keep_outputs=reference is None, progress=progress
            ),
        )
    return Artifact(_tensors(found, task), _facts(found, task, split, parent, cost, context))


def finished_now() -> str:
    """The time in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def evaluation_cost(context: RunContext, cost: Measured, parent: StudentFacts | None) -> Cost:
    """What an evaluation cost, with the student's making."""
    own = cost_of(context, cost, evaluation=cost.seconds)
    return own.plus(parent.cost) if parent else own


def _tensors(found: Evaluation, task: Task) -> dict[str, Tensor]:
    import torch

    tensors = {f"{OUTCOMES}{name}": values for name, values in found.outcomes.items()}
    if found.outputs is not None:
        tensors["outputs"] = found.outputs.to(getattr(torch, task.outputs_dtype))
    if found.shown is not None:
        tensors["shown"] = found.shown
    return tensors


def _facts(
    found: Evaluation,
    task: Task,
    split: SplitFacts,
    parent: StudentFacts | None,
    cost: Measured,
    context: RunContext,
) -> EvaluationFacts:
    metrics = dict(found.metrics)
    if parent is not None and parent.oracle is not None:
        metrics[f"oracle_{task.primary_metric}"] = parent.oracle
    return EvaluationFacts(
        environment=environment(context.device, context.threads),
        metrics=metrics,
        metric=task.primary_metric,
        images=len(found.sample_ids),
        samples=split.digest,
        whole=split.whole,
        labelled=split.labelled,
        cost=evaluation_cost(context, cost, parent),
        images_per_second=len(found.sample_ids) / max(cost.seconds, 1e-9),
        synthetic_images=parent.synthetic_images if parent else 0,
        gradient_shares=parent.gradient_shares.means() if parent else {},
        notes=(*(parent.notes if parent else ()), *found.notes, *context.notes()),
        finished_at=finished_now(),
    )
