"""Trials and the graph of stages they consist of, each with a content key; `expansion` makes them.

    Synthesize(teacher)  ->  Quantize(teacher, images)  ->  Evaluate(student, reference)
                             (or a chain that ends with it, see `harness.planning.making`)
    Reference = Evaluate of the teacher itself; every quantized trial of its backbone waits for it

Trials that need the same synthesis share one stage. A key hashes the stage's settings, its parents' keys and
the version of the code that decides the answer; paths, devices and worker counts stay out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.stages.base import Stage
from harness.stages.kinds import is_made
from harness.store import Store
from harness.store.uses import StoredPlan
from harness.suites.suite import Suite
from results.record import TrialIdentity, read_fields

KEY_RECIPE = 2
"""Raise when the recipe below changes, or `harness.stages` changes an answer or its facts."""


@dataclass(frozen=True, kw_only=True)
class Trial(TrialIdentity):
    """One row's worth of work for one seed: a path through the stages."""

    protocol: Mapping[str, Any]
    """What is quantized and how, and the transform, as far as it is known before the run."""
    notes: tuple[str, ...] = ()
    """What a reader of the row should know that no stage can tell."""
    making: tuple[str, ...] = ()
    """Keys of the stages that make the student, in order; none for full precision."""
    training: tuple[str, ...] = ()
    """Those of them that work on the student: all but the sets of images."""
    images: str | None = None
    """Key of the stage that holds the last set of images; None for full precision."""
    code: str = ""
    """Digest of the code that decides its stages."""

    @property
    def quantization(self) -> str | None:
        """Key of the stage that ends with the student; None for full precision."""
        return self.making[-1] if self.making else None

    @property
    def synthesis(self) -> str | None:
        """Key of the stage that makes the first set from the teacher alone; None where there is none."""
        return self.making[0] if self.making and self.making[0] not in self.training else None

    @property
    def evaluation(self) -> str:
        """Key of the evaluation stage, which is the trial's identity."""
        return self.trial


@dataclass(frozen=True)
class Plan:
    """Trials and the stages they consist of, by key, parents before children."""

    suite: Suite
    trials: tuple[Trial, ...]
    stages: Mapping[str, Stage]

    def missing(self, store: Store) -> list[Stage]:
        """The stages that have to run, parents first: exactly those whose answers somebody still needs."""
        return missing_for((trial.evaluation for trial in self.trials), self.stages, store)

    def references(self) -> dict[str, Stage]:
        """Backbone -> the stage that evaluates its full-precision model."""
        return {t.backbone: self.stages[t.evaluation] for t in self.trials if t.method == "fp32"}


def stored_plan(plan: Plan) -> StoredPlan:
    """The plan as a store remembers it."""
    wanted = [trial.evaluation for trial in plan.trials]
    trials = [{f.name: getattr(trial, f.name) for f in dataclasses.fields(trial)} for trial in plan.trials]
    return StoredPlan(plan.suite.name, wanted, needs_of(plan), trials, plan.suite.left_out)


def needs_of(plan: Plan) -> dict[str, list[str]]:
    """Key of each stage -> keys of all that have to be done before it starts."""
    return {key: list(dict.fromkeys(stage.awaited)) for key, stage in plan.stages.items()}


def trials_of(plan: StoredPlan) -> list[Trial]:
    """The trials of a plan that a store remembers; those that cannot be read are left out."""
    found = []
    for said in plan.trials:
        with contextlib.suppress(ValueError):
            found.append(read_fields(Trial, said, "trial"))
    return found


def missing_for(wanted: Iterable[str], stages: Mapping[str, Stage], store: Store) -> list[Stage]:
    """The stages that have to run so that the wanted ones are there, in the order of `stages`.

    What was only on the way to something that is there is not missed. Parents that are not among the stages
    are taken as done.
    """
    needed: dict[str, bool] = {}

    def visit(key: str) -> None:
        """Look at the stage, and at what it waits for only if it has to run."""
        if key in stages and key not in needed:
            needed[key] = not is_made(stages[key], store)
            if needed[key]:
                for parent in stages[key].awaited:
                    visit(parent)

    for key in wanted:
        visit(key)
    return [stage for key, stage in stages.items() if needed.get(key)]


def stage_key(kind: str, settings: Mapping[str, Any], parents: Mapping[str, str], code: str) -> str:
    """Content key: 24 hexadecimal digits of a SHA-256 over canonical JSON."""
    content = {"recipe": KEY_RECIPE, "kind": kind, "settings": settings, "parents": parents, "code": code}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:24]
