"""A workbench for tests of single stages: trained digits models, smallest budgets, one store for all."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness.planning.making import Making, making_of
from harness.planning.plan import missing_for
from harness.planning.request import Machine, Places, Request, Rows
from harness.planning.session import open_workbench
from harness.stages.base import RunContext, Stage
from harness.stages.run_stage import run_stage
from harness.store import Store, open_store

BACKBONE = "digits_vit"


@dataclass(frozen=True)
class Bench:
    builder: object
    context: RunContext
    store: Store

    def made(self, stage: Stage) -> str:
        """Runs the stage unless its artifact is there; gives its key."""
        result = run_stage(stage, self.context)
        assert result.status in ("done", "cached"), result.reason
        return stage.key

    def images(self, name: str, engine: str = "psaq_ptq") -> Stage:
        stage = self.builder.synthesis(name, engine, BACKBONE, 0)
        self.made(stage)
        return stage

    def student(self, name: str, engine: str = "psaq_ptq") -> Stage:
        return self.making(name, engine).student

    def making(self, name: str, engine: str) -> Making:
        """Makes a student with all stages on the way."""
        making = making_of(self.builder, name, engine, BACKBONE, self.builder.suite.bits[0], 0)
        wanted = (making.images.key, making.student.key)
        for stage in missing_for(wanted, self.builder.stages, self.store):
            self.made(stage)
        return making

    def reference(self) -> Stage:
        stage = self.builder.reference(BACKBONE)
        self.made(stage)
        return stage


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Bench:
    folder = tmp_path_factory.mktemp("bench") / "store"
    assignments = ("lsq_qat.epochs=2", "error_reduction.compensation=qwt")
    request = Request(
        Rows(suite="digits_w4a4", budget="smoke", assignments=assignments, oracle=True),
        Places(store=str(folder)),
        Machine(device="cpu", cpus_per_trial=1),
    )
    builder, context, _ = open_workbench(request)
    return Bench(builder, context, open_store(folder))
