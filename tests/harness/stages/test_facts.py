"""Facts come back from the store as they went in, or are refused as damaged."""

from __future__ import annotations

import dataclasses

import pytest

from harness.errors import ArtifactError
from harness.stages.facts import (
    SYNTHESIS_COSTS,
    Cost,
    Environment,
    EvaluationFacts,
    StudentFacts,
    StudentRecipe,
    SynthesisFacts,
    evaluation_facts,
    read_facts,
    student_facts,
    synthesis_facts,
    write_artifact,
)
from harness.store import Store, open_store
from methods.base import GradientShares

ENVIRONMENT = Environment(packages={"torch": "2.9"}, python="3.12", device="cpu (x)", threads=2)
IMAGES = SynthesisFacts(
    environment=ENVIRONMENT,
    cost=Cost(synthesis_seconds=3.0, peak_memory_mb=100.0),
    synthetic_images=32,
    final_losses={"variation": 0.25},
    gradient_shares=GradientShares((1, 25), {"variation": [0.25, 0.5]}),
    notes=("a", "b"),
)
STUDENT = StudentFacts(
    environment=ENVIRONMENT,
    recipe=StudentRecipe("lsq_qat", {"epochs": 2, "heads": [1, 2]}, "w4a4", "whole"),
    cost=Cost(synthesis_seconds=3.0, quantization_seconds=2.0, peak_memory_mb=100.0),
    synthetic_images=32,
    final_losses={},
)
SCORE = EvaluationFacts(
    environment=ENVIRONMENT,
    metrics={"top1": 50.0, "kl": float("inf")},
    metric="top1",
    images=500,
    samples="digest",
    whole=True,
    labelled=False,
    cost=Cost(evaluation_seconds=1.0, peak_memory_mb=90),
    images_per_second=500.0,
    finished_at="2025-01-01T00:00:00Z",
)
READERS = {SynthesisFacts: synthesis_facts, StudentFacts: student_facts, EvaluationFacts: evaluation_facts}


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path).create()


def write_json(store: Store, facts: object) -> None:
    store.write("k", {}, {"kind": "evaluate", "facts": facts})


@pytest.mark.parametrize("facts", [IMAGES, STUDENT, SCORE], ids=lambda facts: type(facts).__name__)
def test_facts_come_back_as_written(store, facts):
    write_artifact(store, "k", {}, facts, label="a score", seconds=1.5)
    assert READERS[type(facts)](store, "k") == facts
    assert store.meta("k") == {"label": "a score", "seconds": 1.5, "facts": store.meta("k")["facts"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "EvaluationFacts.*unknown surprise"),
        ({"metric": None}, r"EvaluationFacts\.metric is None"),
        ({"images": True}, r"EvaluationFacts\.images is True"),
        ({"whole": 1}, r"EvaluationFacts\.whole is 1"),
        ({"cost": {"seconds": 1.0}}, "Cost.*unknown seconds; missing"),
        ({"environment": []}, "Environment is no mapping"),
    ],
)
def test_facts_of_another_form_are_refused(store, change, message):
    write_json(store, {**SCORE.to_json(), **change})
    with pytest.raises(
        ArtifactError, match=rf"^damaged: .*artifacts/k \({message}.*\); delete it and run again"
    ):
        evaluation_facts(store, "k")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(EvaluationFacts)])
def test_no_fact_may_be_missing(store, name):
    write_json(store, {key: value for key, value in SCORE.to_json().items() if key != name})
    with pytest.raises(ArtifactError, match=f"missing {name}"):
        evaluation_facts(store, "k")


def test_an_artifact_without_facts_is_refused(store):
    store.write("k", {}, {})
    with pytest.raises(ArtifactError, match=r"^damaged: .*artifacts/k \("):
        evaluation_facts(store, "k")


def test_facts_of_another_kind_are_refused(store):
    write_artifact(store, "k", {}, IMAGES)
    with pytest.raises(ArtifactError, match="StudentFacts"):
        student_facts(store, "k")


def test_an_absent_artifact_is_named(store):
    with pytest.raises(ArtifactError, match="no artifact k"):
        read_facts(store, "k", EvaluationFacts)


def test_costs_of_work_in_a_row_add_up_by_kind_and_peak():
    images = Cost(synthesis_seconds=3.0, peak_memory_mb=100.0)
    student = Cost(quantization_seconds=2.0, peak_memory_mb=80.0).plus(images)
    score = Cost(evaluation_seconds=1.0, peak_memory_mb=120.0).plus(student)
    assert student == Cost(synthesis_seconds=3.0, quantization_seconds=2.0, peak_memory_mb=100.0)
    assert score == Cost(3.0, 2.0, 1.0, peak_memory_mb=120.0)
    assert score.making_seconds == 5.0


CPU, GPU = "cpu (x86_64)", "NVIDIA H100"


def on(device: str, **amounts: float) -> Cost:
    return Cost(**amounts, devices=dict.fromkeys(amounts, device))


def test_costs_of_two_devices_are_never_added():
    images = on(CPU, synthesis_seconds=60.0, peak_memory_mb=500.0)
    later = on(GPU, synthesis_seconds=2.0, synthesis_gpu_seconds=1.0, peak_memory_mb=9000.0)
    student = on(GPU, quantization_seconds=5.0, quantization_gpu_seconds=2.5, peak_memory_mb=8000.0)
    apart = student.plus(images)
    assert (apart.synthesis_seconds, apart.quantization_seconds) == (60.0, 5.0)
    assert apart.peak_memory_mb is None
    assert apart.devices["peak_memory_mb"] == f"{GPU} + {CPU}"
    assert apart.making_seconds is None
    assert apart.making_gpu_seconds == 2.5
    mixed = apart.plus(later)
    assert mixed.synthesis_seconds is None
    assert mixed.devices["synthesis_seconds"] == f"{GPU} + {CPU}"
    assert mixed.plus(on(CPU, synthesis_seconds=1.0)).synthesis_seconds is None  # once mixed, for good
    assert (mixed.quantization_seconds, mixed.making_gpu_seconds) == (5.0, 3.5)
    alone = student.plus(later)
    assert (alone.making_seconds, alone.making_gpu_seconds, alone.peak_memory_mb) == (7.0, 3.5, 9000.0)
    assert mixed.without(*SYNTHESIS_COSTS).known() == {
        "quantization_seconds": 5.0,
        "quantization_gpu_seconds": 2.5,
    }
    assert SynthesisFacts.from_json(dataclasses.replace(IMAGES, cost=mixed).to_json()).cost == mixed


def test_a_record_is_told_the_costs_that_were_measured_alone():
    assert SCORE.costs() == {
        "evaluation_seconds": 1.0,
        "peak_memory_mb": 90,
        "images_per_second": 500.0,
        "synthetic_images": 0,
    }


def test_an_environment_is_one_flat_text_in_records():
    plain = {"torch": "2.9", "python": "3.12", "device": "cpu (x)", "threads": "2", "precision": "exact"}
    assert ENVIRONMENT.as_text() == plain
    stack = {"cuda": "13.0", "driver": "580.1"}
    on_gpu = dataclasses.replace(ENVIRONMENT, gpu_stack=stack, unrepeatable=("put_", "histc"))
    assert on_gpu.as_text() == {**plain, **stack, "unrepeatable": "put_, histc"}
