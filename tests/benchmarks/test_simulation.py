"""What the benchmark of scale plants is what a run would have left: whole, and of its stage's kind."""

from __future__ import annotations

import dataclasses

from harness.stages.kinds import is_made
from harness.store import open_store
from tests.benchmarks.simulation import plan_session, plant


def test_a_planted_artifact_of_every_kind_counts_as_made(tmp_path):
    stages = {stage.kind: stage for stage in plan_session(1, tmp_path).plan.stages.values()}
    assert {"evaluate", "synthesize", "quantize"} <= set(stages)
    stages["train"] = dataclasses.replace(stages["quantize"], kind="train", key="0" * 24)
    store = open_store(tmp_path).create()
    for kind, stage in stages.items():
        assert not is_made(stage, store), kind
        plant(stage, store)
        assert is_made(stage, store), kind
