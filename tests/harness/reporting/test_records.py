"""Records are put together from a plan and what the store holds of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from harness.planning.plan import Plan, Trial
from harness.reporting.records import records_of
from harness.stages.base import Stage
from harness.stages.facts import Cost, Environment, EvaluationFacts, write_artifact
from harness.store import Store, open_store
from harness.suites.suite import Suite
from results.statistics import unpack_outcomes, unpack_scores

RIGHT = torch.tensor([True, False, True, True])
FACTS = EvaluationFacts(
    environment=Environment({"torch": "2.11"}, python="3.11.9", device="cpu x86_64", threads=2),
    metrics={"top1": 75.0, "agreement": 99.9, "kl": 0.001},
    metric="top1",
    images=4,
    samples="0123456789abcdef0123456789abcdef",
    whole=True,
    labelled=True,
    cost=Cost(synthesis_seconds=60.0, evaluation_seconds=2.0, peak_memory_mb=512.0),
    images_per_second=2.0,
    synthetic_images=32,
    gradient_shares={"one_hot": 0.9, "alignment": 0.1},
    finished_at="2026-11-25T10:00:00Z",
    notes=("one class was missing",),
)


def trial(method: str = "psaq_vit", **changes: Any) -> Trial:
    is_fp32 = method == "fp32"
    values = {
        "trial": f"evaluation of {method}",
        "method": method,
        "synthesizer": "none" if is_fp32 else method,
        "engine": "none" if is_fp32 else "psaq_ptq",
        "backbone": "digits_vit",
        "bits": "fp32" if is_fp32 else "w4a4",
        "task": "digits",
        "track": "published",
        "budget": "smoke",
        "seed": 3,
        "settings": {} if is_fp32 else {"engine": {"batch_size": 32}},
        "weights_sha256": "weights",
        "tuning": {} if is_fp32 else {"trials": 50},
        "protocol": {"engine": {}, "transform": {"resize": 28}},
        "making": () if is_fp32 else (f"synthesis of {method}", f"quantization of {method}"),
        "training": () if is_fp32 else (f"quantization of {method}",),
    }
    return Trial(**{**values, **changes})


def plan_of(*trials: Trial) -> Plan:
    kinds = {
        key: kind
        for one in trials
        for kind, key in (
            ("synthesize", one.synthesis),
            ("quantize", one.quantization),
            ("evaluate", one.evaluation),
        )
        if key
    }
    stages = {key: Stage(kind, key, {}, {}, key) for key, kind in kinds.items()}
    suite = Suite(name="some", task="digits", backbones=("digits_vit",), bits=(), methods=())
    return Plan(suite, trials, stages)


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path).create()


def write(store: Store, one: Trial, outcomes: dict[str, torch.Tensor] | None = None, **facts: Any) -> None:
    tensors = {"outcomes.top1": RIGHT} if outcomes is None else outcomes
    found = dataclasses.replace(FACTS, **facts)
    write_artifact(store, one.evaluation, tensors, found, label=one.label, seconds=3.0)


def test_what_the_plan_knows_of_a_row_comes_before_what_its_stages_say(store):
    one = trial(notes=("7 images",))
    write(store, one)
    (made,) = records_of(plan_of(one), store)
    assert made.notes == ("7 images", "one class was missing")


def test_a_record_is_its_trial_with_what_the_evaluation_found(store):
    one = trial()
    write(store, one)
    (record,) = records_of(plan_of(one), store)
    assert record.identity() == one.identity()
    assert (record.status, record.reason) == ("ok", "")
    assert (record.metric, record.metrics, record.images) == ("top1", FACTS.metrics, 4)
    assert unpack_outcomes(record.outcomes["top1"], 4).tolist() == RIGHT.tolist()
    assert record.scores == {}
    assert record.samples_digest == FACTS.samples
    assert record.gradient_shares == {"one_hot": 0.9, "alignment": 0.1}
    assert record.cost == {
        "synthesis_seconds": 60.0,
        "evaluation_seconds": 2.0,
        "peak_memory_mb": 512.0,
        "images_per_second": 2.0,
        "synthetic_images": 32,
    }
    assert record.environment == {
        "torch": "2.11",
        "python": "3.11.9",
        "device": "cpu x86_64",
        "threads": "2",
        "precision": "exact",
    }
    assert record.notes == ("one class was missing",)
    assert record.finished_at == FACTS.finished_at


def test_records_come_in_plan_order_whether_or_not_there_is_a_result(store):
    trials = [trial("psaq_vit"), trial("fp32"), trial("maskaq")]
    write(store, trials[1])
    records = records_of(plan_of(*trials), store)
    assert [(record.method, record.status) for record in records] == [
        ("psaq_vit", "missing"),
        ("fp32", "ok"),
        ("maskaq", "missing"),
    ]
    assert records[0].reason == "not run yet"


def test_the_protocol_gains_what_only_a_run_can_tell(store):
    quantized, teacher = trial(), trial("fp32")
    write(store, quantized)
    write(store, teacher, metrics={"top1": 98.76543})
    record, reference = records_of(plan_of(quantized, teacher), store)
    found = {"calibration_images": 32, "full_precision": 98.765, "evaluated_samples": "0123456789abcdef"}
    assert record.protocol == {**quantized.protocol, **found}
    assert reference.protocol == {**teacher.protocol, **found}


def test_the_full_precision_score_is_open_where_the_teacher_was_not_evaluated(store):
    one = trial()
    write(store, one)
    (record,) = records_of(plan_of(one, trial("fp32")), store)[:1]
    assert record.protocol["full_precision"] is None


def test_full_precision_agrees_with_itself_exactly_where_that_was_measured(store):
    teacher, quantized = trial("fp32"), trial()
    write(store, teacher)
    write(store, quantized)
    reference, record = records_of(plan_of(teacher, quantized), store)
    assert reference.metrics == {"top1": 75.0, "agreement": 100.0, "kl": 0.0}
    assert record.metrics == FACTS.metrics
    write(store, teacher, metrics={"ap": 40.0})
    assert records_of(plan_of(teacher), store)[0].metrics == {"ap": 40.0}


def test_numbers_per_image_are_kept_of_the_ranking_metric_alone(store):
    one = trial()
    scores = torch.tensor([0.5, 0.25, 1.0, 0.0])
    outcomes = {"outcomes.ap": scores, "outcomes.mask_ap": scores / 2, "outcomes.agreement": RIGHT}
    write(store, one, outcomes, metric="ap", metrics={"ap": 43.75})
    (record,) = records_of(plan_of(one), store)
    assert set(record.scores) == {"ap"}
    assert unpack_scores(record.scores["ap"], 4).tolist() == scores.tolist()
    assert set(record.outcomes) == {"agreement"}


def test_a_failed_trial_says_what_failed_first_and_keeps_what_is_known(store):
    one = trial()
    store.write_failure(one.quantization, {"status": "out_of_memory", "reason": "8 GiB were asked for"})
    store.write_failure(one.evaluation, {"status": "failed", "reason": "a later one"})
    (record,) = records_of(plan_of(one), store)
    assert (record.status, record.reason) == ("out_of_memory", "quantize: 8 GiB were asked for")
    assert record.identity() == one.identity()
    assert record.protocol == one.protocol
    assert (record.metrics, record.images, record.samples_digest) == ({}, 0, "")


def test_a_result_counts_although_an_earlier_attempt_failed(store):
    one = trial()
    store.write_failure(one.synthesis, {"status": "failed", "reason": "planted"})
    write(store, one)
    assert records_of(plan_of(one), store)[0].status == "ok"


def test_a_damaged_evaluation_costs_its_row_alone(store):
    whole, cut, foreign = trial("psaq_vit"), trial("mimiq"), trial("maskaq")
    for one in (whole, cut):
        write(store, one)
    data = store.place(cut.evaluation) / "data.safetensors"
    data.write_bytes(data.read_bytes()[:-1])
    store.write(foreign.evaluation, {}, {"facts": {"other": 1}})
    records = records_of(plan_of(whole, cut, foreign), store)
    assert [record.status for record in records] == ["ok", "failed", "failed"]
    assert records[1].reason == f"damaged: {data}; delete it and run again"
    assert records[2].reason.startswith(f"damaged: {store.place(foreign.evaluation)} (EvaluationFacts")
    assert records[1].identity() == cut.identity()


@pytest.mark.parametrize("content", ["", "x", "[]", "null", "{}", '{"status": "failed"}'])
def test_a_failure_that_cannot_be_read_costs_its_row_alone(store, content):
    whole, failed = trial("psaq_vit"), trial("mimiq")
    write(store, whole)
    file = store.root / "failures" / f"{failed.quantization}.json"
    file.write_text(content)
    records = records_of(plan_of(whole, failed), store)
    assert [record.status for record in records] == ["ok", "failed"]
    assert records[1].reason == f"quantize: damaged: {file}; delete it and run again"


def test_a_failure_of_an_unknown_status_is_a_failure(store):
    one = trial()
    store.write_failure(one.quantization, {"status": "exploded", "reason": "r"})
    (record,) = records_of(plan_of(one), store)
    assert (record.status, record.reason) == ("failed", "quantize: r")
