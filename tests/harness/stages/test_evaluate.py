"""The stages that score: on a task's split, and by agreement on synthetic images."""

from __future__ import annotations

import dataclasses

import pytest

from harness.stages.agreement import probe_images
from harness.stages.facts import evaluation_facts, student_facts
from harness.stages.run_stage import run_stage
from harness.store import open_store
from tests.harness.stages.conftest import BACKBONE


@pytest.fixture(scope="module")
def score(bench):
    """The evaluation stage of a calibrated student."""
    stage = bench.builder.evaluation(BACKBONE, bench.student("gaussian_noise"), bench.reference())
    bench.made(stage)
    return stage


def test_the_reference_keeps_the_teachers_outputs_and_costs_no_synthesis(bench):
    key = bench.reference().key
    facts, stored = evaluation_facts(bench.store, key), bench.store.tensors(key)
    assert facts.metric == "top1"
    assert facts.metrics["top1"] > 95
    assert stored["outputs"].shape == (facts.images, 10)
    assert facts.synthetic_images == 0
    assert set(facts.costs()) == {
        "evaluation_seconds",
        "peak_memory_mb",
        "images_per_second",
        "synthetic_images",
    }


def test_a_score_takes_over_what_is_known_of_the_student(bench, score):
    facts = evaluation_facts(bench.store, score.key)
    student = student_facts(bench.store, score.parents["student"])
    assert facts.synthetic_images == student.synthetic_images
    assert facts.cost.making_seconds == student.cost.making_seconds
    # A calibrated student is looked at once, as it is when it is done.
    assert facts.metrics["oracle_top1"] == student.oracle == facts.metrics["top1"]
    assert facts.metrics["top1"] < evaluation_facts(bench.store, bench.reference().key).metrics["top1"]


def test_scores_say_what_the_loss_terms_moved_of_the_images(bench):
    student = bench.student("psaq_vit")
    scored = bench.builder.evaluation(BACKBONE, student, bench.reference())
    agreed = bench.builder.agreement(BACKBONE, student, bench.images("gaussian_noise"))
    means = student_facts(bench.store, student.key).gradient_shares.means()
    assert set(means) == {"patch_entropy", "one_hot", "variation"}
    for stage in (scored, agreed):
        assert evaluation_facts(bench.store, bench.made(stage)).gradient_shares == means
    assert evaluation_facts(bench.store, bench.reference().key).gradient_shares == {}


def test_outcomes_are_per_image_and_their_mean_is_the_metric(bench, score):
    facts, stored = evaluation_facts(bench.store, score.key), bench.store.tensors(score.key)
    right = stored["outcomes.top1"]
    assert len(right) == facts.images
    assert 100 * right.double().mean().item() == pytest.approx(facts.metrics["top1"])
    assert "outputs" not in stored


def test_other_data_than_planned_are_refused(bench):
    stage = bench.reference()
    settings = {**stage.settings, "samples": "another digest"}
    result = run_stage(dataclasses.replace(stage, settings=settings, key="other_data"), bench.context)
    assert result.status == "failed"
    assert "the digits data changed since the run was planned" in result.reason


def test_agreement_is_scored_without_a_task(bench):
    images = bench.images("psaq_vit")
    stage = bench.builder.agreement(BACKBONE, bench.student("gaussian_noise"), images)
    assert stage.kind == "agree"
    assert "task" not in stage.settings
    bench.made(stage)
    facts = evaluation_facts(bench.store, stage.key)
    assert facts.metric == "agreement"
    assert 0 <= facts.metrics["agreement"] <= 100
    assert (facts.samples, facts.labelled, facts.whole) == (images.key, False, False)
    assert facts.images == len(bench.store.tensors(stage.key)["outcomes.agreement"])


def test_probe_images_are_read_once_whoever_opened_the_store(bench):
    key = bench.images("psaq_vit").key
    assert probe_images(bench.store, key) is probe_images(open_store(bench.store.root), key)
