"""What only led to a student is dropped when it stands: what stays, what is made again, two runs at once."""

from __future__ import annotations

import pytest
import torch

from harness.planning import making, stage_builder
from harness.planning.making import Making, making_of
from harness.planning.plan import missing_for
from harness.planning.request import Machine, Places, Request, Rows
from harness.planning.session import open_workbench
from harness.stages.run_stage import run_stage
from harness.stages.superseded import SAMPLE, sample_of
from harness.store import open_store
from tests.harness.stages.conftest import BACKBONE, Bench

SETTINGS = (
    "lsq_qat.epochs=3",
    "maskaq.iterations=2",
    "maskaq.images=20",
    "maskaq.batch_size=10",
    "maskaq.refresh_every=1",
)


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    """MaskAQ with a set and a link per epoch, each set in two shards."""
    monkeypatch.setattr(making, "IMAGES_PER_LINK", 1)
    monkeypatch.setattr(stage_builder, "STEPS_PER_SHARD", 1)
    rows = Rows(suite="digits_w4a4", budget="smoke", assignments=SETTINGS)
    request = Request(rows, Places(store=str(tmp_path / "store")), Machine(device="cpu", cpus_per_trial=1))
    builder, context, _ = open_workbench(request)
    return Bench(builder, context, open_store(tmp_path / "store"))


def planned(bench: Bench) -> Making:
    return making_of(bench.builder, "maskaq", "lsq_qat", BACKBONE, bench.builder.suite.bits[0], 0)


def run(bench: Bench, wanted: list[str]) -> list[str]:
    """Kinds of the stages that had to run."""
    return [run_stage(stage, bench.context).status and stage.kind for stage in missing(bench, wanted)]


def stored(bench: Bench) -> set[str]:
    return {key for key in bench.store.stored_keys() if not key.endswith(".sample")}


def missing(bench: Bench, wanted: list[str]):
    return missing_for(wanted, bench.builder.stages, bench.store)


def test_the_first_set_the_last_and_the_student_stay_and_a_sample_of_the_others(bench):
    made = planned(bench)
    first, _, second, _, third, student = made.stages
    kinds = run(bench, [student.key])
    counts = {kind: kinds.count(kind) for kind in ("shard", "synthesize", "train", "quantize")}
    assert counts == {"shard": 6, "synthesize": 3, "train": 2, "quantize": 1}
    assert stored(bench) == {first.key, third.key, student.key}
    assert missing(bench, [student.key, third.key]) == []
    assert sample_of(bench.store, second.key)["images"].shape[0] == SAMPLE
    assert sample_of(bench.store, first.key) == sample_of(bench.store, third.key) == {}


def test_a_student_that_is_lost_is_made_again_with_what_leads_to_it_to_the_last_bit(bench):
    made = planned(bench)
    third, student = made.stages[-2:]
    run(bench, [student.key])
    before = bench.store.tensors(student.key), bench.store.tensors(third.key)
    bench.store.remove(student.key)
    bench.store.remove(third.key)
    kinds = run(bench, [student.key])
    assert (kinds.count("synthesize"), kinds.count("train"), kinds.count("quantize")) == (2, 2, 1)
    for old, new in zip(before, (bench.store.tensors(k) for k in (student.key, third.key)), strict=True):
        assert all(torch.equal(old[name], value) for name, value in new.items())
    assert len(stored(bench)) == 3


def test_a_last_set_that_is_lost_is_made_again_although_its_student_stands(bench):
    made = planned(bench)
    third, student = made.stages[-2:]
    run(bench, [student.key])
    before = bench.store.tensors(third.key)["images"]
    bench.store.remove(third.key)
    assert missing(bench, [student.key]) == []
    run(bench, [third.key])
    assert torch.equal(bench.store.tensors(third.key)["images"], before)
    assert len(stored(bench)) == 3


def test_a_run_that_was_planned_before_another_one_dropped_what_it_waits_for_finds_the_student(bench):
    made = planned(bench)
    slow = missing(bench, [made.student.key])
    run(bench, [made.student.key])
    assert {run_stage(stage, bench.context).status for stage in slow} == {"cached"}
    assert len(stored(bench)) == 3


def test_students_with_and_without_an_oracle_share_no_set_that_one_of_them_drops(tmp_path):
    keys = []
    for oracle in (True, False):
        rows = Rows(suite="digits_w4a4", budget="smoke", assignments=SETTINGS, oracle=oracle)
        request = Request(rows, Places(store=str(tmp_path)), Machine(device="cpu", cpus_per_trial=1))
        builder = open_workbench(request).builder
        made = making_of(builder, "maskaq", "lsq_qat", BACKBONE, builder.suite.bits[0], 0)
        keys.append({stage.key for stage in made.stages})
    assert len(keys[0] & keys[1]) == 1  # the first set, which stays
