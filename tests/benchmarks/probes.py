"""How well a data-free score ranks students: over the finished tries of the searches that a store holds.

    python -m tests.benchmarks.probes --store STORE --suite digits_w3a3 --image-methods fdd,mimiq,psaq_vit

Prints, as Markdown, Spearman's rank correlation with accuracy on the tuning split: for each method's images
and each number of them, of agreement (same first answer) and of minus the KL divergence. Tries of all studies
of one method are ranked together; a search itself sees no label.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from harness.execution.ensure import require
from harness.execution.schedulers.inline import InlineScheduler
from harness.planning.request import Machine, Places, Request, Rows
from harness.stages.agreement import compared, probe_images
from harness.stages.kinds import is_made
from harness.stages.rebuild import stored_student, teacher_of
from harness.store import open_store
from harness.tuning.objectives import TaskWatch
from harness.tuning.options import TuneOptions
from harness.tuning.outcome import finished
from harness.tuning.preparation import PROBE_IMAGES, Preparation, prepare
from harness.tuning.search import plan_of
from harness.tuning.studies import SUBJECT

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backbones import Backbone

_SIZES = (32, 64, 128)
_SCORES = {"agreement": 1, "kl": -1}
"""Metric -> its sign where higher is better."""
_ALL = "all of them"
_BATCH = 64

Name = tuple[str, int, str]
"""Images of which methods, how many of each, and the score."""


def correlations(values: Mapping[Name, Sequence[float]], accuracy: Sequence[float]) -> dict[Name, float]:
    """Spearman's rank correlation of each score with accuracy; nan where one of them never varies."""
    from scipy.stats import spearmanr

    return {name: float(spearmanr(scores, accuracy).statistic) for name, scores in values.items()}


def scores_of(student: nn.Module, teacher: Backbone, images: Mapping[str, Tensor]) -> dict[Name, float]:
    """Every score of one student, as a search takes it: on so many of each method's images."""
    found = {}
    for size in _SIZES:
        metrics = {
            name: compared(student, teacher, made[:size], _BATCH).metrics for name, made in images.items()
        }
        for score, sign in _SCORES.items():
            single = {name: sign * one[score] for name, one in metrics.items()}
            found |= {(name, size, score): value for name, value in single.items()}
            found[_ALL, size, score] = sum(single.values()) / len(single)
    return found


def _prepared(options: argparse.Namespace, method: str, image_method: str) -> Preparation:
    rows = Rows(options.suite, methods=(method,), assignments=tuple(options.assignments))
    request = Request(rows, Places(store=options.store), Machine(device="cpu", scheduler="inline"))
    return prepare(request, TuneOptions(probe=image_method))


def _images(options: argparse.Namespace, method: str) -> dict[str, Tensor]:
    """Each image method's held-out images, made where the store lacks them."""
    found = {}
    for name in options.image_methods.split(","):
        prepared = _prepared(options, method, name)
        stage, context = prepared.scored_on, prepared.context
        require(stage, context, open_store(context.store), InlineScheduler(), Console(stderr=True))
        found[name] = probe_images(open_store(context.store), stage.key)
    return found


def _students(prepared: Preparation, method: str) -> list[str]:
    """Keys of the students that the finished tries of this method's studies left in the store."""
    import optuna

    store = open_store(prepared.context.store)
    keys: dict[str, None] = {}
    for name in optuna.get_all_study_names(prepared.storage):
        study = optuna.load_study(study_name=name, storage=prepared.storage)
        if study.user_attrs.get(SUBJECT, {}).get("method") != method:
            continue
        for trial in finished(study):
            plan = plan_of(prepared.subject, prepared.space, prepared.builder, trial.params)
            stages = [plan.stages[one.quantization] for one in plan.trials if one.quantization]
            keys |= {stage.key: None for stage in stages if is_made(stage, store)}
    return list(keys)


def table(columns: Mapping[str, Mapping[Name, float]], counts: Mapping[str, int]) -> str:
    """A Markdown table: a row per set of images and size, two columns per searched method."""
    head = [f"`{method}`, {counts[method]} students: {score}" for method in columns for score in _SCORES]
    lines = [f"| images | each | {' | '.join(head)} |", f"|---|---|{'---|' * len(head)}"]
    rows = dict.fromkeys((name, size) for found in columns.values() for name, size, _ in found)
    for name, size in sorted(rows, key=lambda row: (row[0] == _ALL, row)):
        cells = [f"{found[name, size, score]:.2f}" for found in columns.values() for score in _SCORES]
        lines.append(f"| {name} | {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", required=True, help="a store in which searches have ended")
    parser.add_argument("--suite", required=True, help="the suite that was searched")
    parser.add_argument("--set", action="append", default=[], dest="assignments", help="as it was searched")
    parser.add_argument("--methods", default="mimiq,maskaq", help="whose searches")
    parser.add_argument("--image-methods", default="fdd,mimiq,psaq_vit,gaussian_noise", help="whose images")
    options = parser.parse_args()
    assert max(_SIZES) <= PROBE_IMAGES
    columns, counts = {}, {}
    for method in options.methods.split(","):
        images = _images(options, method)
        prepared = _prepared(options, method, options.image_methods.split(",")[0])
        store = open_store(prepared.context.store)
        reference = prepared.subject.reference
        require(reference, prepared.context, store, InlineScheduler(), Console(stderr=True))
        teacher = teacher_of(reference, prepared.context)
        watch = TaskWatch(prepared.builder.suite.task, reference.key)
        values: dict[Name, list[float]] = defaultdict(list)
        accuracies = []
        for key in _students(prepared, method):
            student = stored_student(store, key, teacher)
            accuracies.append(watch.score(student, teacher, prepared.context, store))
            for name, value in scores_of(student, teacher, images).items():
                values[name].append(value)
        columns[method] = correlations(values, accuracies)
        counts[method] = len(accuracies)
    print(table(columns, counts))


if __name__ == "__main__":
    main()
