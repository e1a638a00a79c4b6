"""A run of any size without its work: a real plan and store, and an executor whose stages end at once.

The stages' artifacts are planted, so that what is left is what the driver does itself.
"""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from backbones import SPECS, sha256_of_weights
from backbones.loading import find_weights
from harness.execution.schedulers.base import Progression, Work
from harness.execution.time_limits import Overdue
from harness.planning.session import Session, session_of
from harness.stages.base import RunContext, Stage, StageResult
from harness.stages.facts import (
    Cost,
    Environment,
    EvaluationFacts,
    Facts,
    StudentFacts,
    StudentRecipe,
    SynthesisFacts,
    TrainingFacts,
    write_artifact,
)
from harness.store import Store, open_store
from harness.suites.suite import Suite
from methods.bits import HIGHEST, LOWEST, Bits

BACKBONES = ("digits_vit", "digits_swin")
METHODS = ("psaq_vit", "mimiq", "maskaq", "sardfq", "smi")
ENGINES = ("psaq_ptq", "lsq_qat")
_IMAGES = 500
_SLOTS = 64
_ENVIRONMENT = Environment({"torch": "0"}, "3.11", "cpu (simulated)", 1)
_COST = Cost(1.0, 1.0, 1.0, 100.0)


def suite_of(stages: int) -> Suite:
    """A suite with about so many stages: every method with two engines, further bit-widths, then seeds."""
    widths = range(LOWEST, HIGHEST + 1)
    pairs = [Bits(*pair) for pair in itertools.product(widths, widths)]
    rows = (len(METHODS) + 2) * len(ENGINES) * 2 * len(BACKBONES)
    count = min(len(pairs), max(1, stages // (rows * 3)))
    return Suite(
        name=f"simulated_{stages}",
        task="digits",
        backbones=BACKBONES,
        bits=tuple(pairs[:count]),
        methods=METHODS,
        seeds=tuple(range(max(3, round(stages / (rows * count))))),
        budget="smoke",
        track="controlled",
        engines=ENGINES,
    )


def plan_session(stages: int, folder: Path) -> Session:
    """The session of a simulated suite, planned as a real one is."""
    context = RunContext(store=folder, stage_timeout=None)
    weights = {name: find_weights(SPECS[name], None, None, download=False) for name in BACKBONES}
    hashes = {name: sha256_of_weights(name, path) for name, path in weights.items()}
    return session_of(suite_of(stages), context, hashes)


class SimulatedScheduler:
    """Keeps as many stages under way as a cluster has slots; each ends when its turn comes.

    `held_seconds` makes the driver wait once, with every slot taken, as for long stages.
    """

    def __init__(self, held_seconds: float = 0.0) -> None:
        self.planting_seconds = 0.0
        """CPU seconds that stood for the workers'."""
        self.held_share = 0.0
        """CPU seconds per second while the driver waited."""
        self._held_seconds = held_seconds

    def run(self, work: Work) -> dict[str, StageResult]:
        """See `Scheduler.run`."""
        store, progression = open_store(work.context.store), Progression(work)
        overdue: Overdue[str] = Overdue(work.context)
        running: dict[str, Stage] = {}
        while True:
            while len(running) < _SLOTS and (stage := progression.start_next()) is not None:
                running[stage.key] = stage
                with self._as_a_worker():
                    store.write_progress(stage.key, {"step": 1, "total": 100, "losses": {"loss": 1.0}})
            if not running:
                return progression.results
            if len(running) == _SLOTS and self._held_seconds:
                self._wait(lambda: overdue.among(running))
            ended = running.pop(next(iter(running)))
            with self._as_a_worker():
                plant(ended, store)
                store.clear_progress(ended.key)
            overdue.forget(ended.key)
            progression.end(StageResult(ended.key, "done", 1.0))

    def close(self) -> None:
        """Nothing is held."""

    def _wait(self, look: Callable[[], object]) -> None:
        began, cpu = time.monotonic(), time.process_time()
        while time.monotonic() - began < self._held_seconds:
            look()
            time.sleep(0.2)
        self.held_share = (time.process_time() - cpu) / (time.monotonic() - began)
        self._held_seconds = 0.0

    @contextmanager
    def _as_a_worker(self) -> Iterator[None]:
        """What is done inside is none of the driver's work."""
        start = time.thread_time()
        try:
            yield
        finally:
            self.planting_seconds += time.thread_time() - start


def plant(stage: Stage, store: Store) -> None:
    """Put an artifact of the stage's kind in the store, as if the stage had run."""
    generator = torch.Generator().manual_seed(int(stage.key[:8], 16))
    if stage.kind == "evaluate":
        tensors = {"outcomes.top1": torch.rand(_IMAGES, generator=generator) < _rate(stage)}
        if not stage.parents:
            tensors["outputs"] = torch.zeros(_IMAGES, 10, dtype=torch.float16)
        write_artifact(store, stage.key, tensors, _score(stage, tensors["outcomes.top1"]))
    else:
        write_artifact(store, stage.key, {"images": torch.zeros(1)}, _made(stage))


def _rate(stage: Stage) -> float:
    """The accuracy of a row, whatever its seed: rows are as far apart as methods at few bits."""
    row, _, _ = stage.label.partition(" seed ")
    return 0.1 + 0.85 * zlib.crc32(row.encode()) / 2**32


def _made(stage: Stage) -> Facts:
    known: dict[str, Any] = {
        "environment": _ENVIRONMENT,
        "cost": _COST,
        "synthetic_images": 32,
        "final_losses": {"total": 1.0},
    }
    if stage.kind == "quantize":
        return StudentFacts(**known, recipe=StudentRecipe.of(stage.settings))
    return (TrainingFacts if stage.kind == "train" else SynthesisFacts)(**known)


def _score(stage: Stage, right: torch.Tensor) -> EvaluationFacts:
    exact = SPECS[stage.settings["backbone"]].reference_score
    top1 = 100 * right.double().mean().item() if stage.parents or exact is None else exact
    return EvaluationFacts(
        environment=_ENVIRONMENT,
        metrics={"top1": top1, "top5": 99.0, "agreement": 90.0, "kl": 0.1},
        metric="top1",
        images=_IMAGES,
        samples=stage.settings["samples"],
        whole=True,
        labelled=True,
        cost=_COST,
        images_per_second=500.0,
        synthetic_images=32 if stage.parents else 0,
        finished_at="2026-01-01T00:00:00Z",
    )
