"""What a search maximises or minimises: which objectives go together, and the values of a try."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from harness.errors import UsageError
from harness.stages.facts import Cost, Environment, EvaluationFacts
from harness.tuning.objectives import parse_objectives, quality_of, values_of


def scored(accuracy: float, synthesis: float, quantization: float, memory: float = 100.0, **more: Any):
    """An evaluation with this top-1 and this cost."""
    return EvaluationFacts(
        environment=Environment({}, "3.11", "cpu", 1),
        metrics={"top1": accuracy},
        metric="top1",
        images=10,
        samples="digest",
        whole=True,
        labelled=True,
        cost=Cost(synthesis, quantization, 1.0, peak_memory_mb=memory, **more),
        images_per_second=10.0,
        synthetic_images=10,
        notes=(),
        finished_at="2026-11-23T10:00:00Z",
    )


def test_without_a_wish_only_methods_that_see_real_images_are_scored_on_some():
    assert parse_objectives(None, "none", "cpu") == ("closeness",)
    assert parse_objectives(None, "none", "cpu", is_detector=True) == ("agreement",)
    assert parse_objectives("", "real images", "cpu") == ("accuracy",)


def test_costs_come_beside_one_quality():
    names = parse_objectives("seconds, accuracy", "none", "cpu")
    assert names == ("seconds", "accuracy")
    assert quality_of(names) == "accuracy"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("agrement", "unknown objective 'agrement': did you mean agreement"),
        ("accuracy,accuracy", "an objective is given twice"),
        ("accuracy,agreement", "exactly one of accuracy, closeness and agreement is needed"),
        ("seconds", "exactly one of accuracy, closeness and agreement is needed"),
        ("accuracy,gpu_seconds", "gpu_seconds needs a GPU"),
    ],
)
def test_objectives_that_do_not_go_together_are_refused_in_a_sentence(text, sentence):
    with pytest.raises(UsageError, match=sentence):
        parse_objectives(text, "none", "cpu")


def test_detectors_have_no_closeness():
    with pytest.raises(UsageError, match="on detectors use agreement"):
        parse_objectives("closeness,seconds", "none", "cpu", is_detector=True)


def test_closeness_is_minus_the_divergence_and_no_number_where_there_is_none():
    metrics = {"agreement": 60.0, "kl": 0.25}
    agreed = dataclasses.replace(scored(60.0, 1.0, 1.0), metric="agreement", metrics=metrics)
    other = dataclasses.replace(agreed, metrics={"agreement": 70.0, "kl": 0.75})
    assert values_of(("closeness",), [agreed, other]) == [-0.5]
    assert values_of(("agreement",), [agreed, other]) == [65.0]
    assert math.isnan(values_of(("closeness",), [scored(60.0, 1.0, 1.0)])[0])


def test_all_faults_are_told_at_once():
    with pytest.raises(UsageError) as caught:
        parse_objectives("sconds,sconds", "none", "cpu")
    assert "unknown objective 'sconds'" in str(caught.value)
    assert "given twice" in str(caught.value)


def test_a_trys_values_are_means_over_its_seeds():
    artifacts = [scored(60.0, 2.0, 3.0, 100.0), scored(70.0, 4.0, 5.0, 300.0)]
    assert values_of(("accuracy", "seconds", "peak_memory_mb"), artifacts) == [65.0, 7.0, 200.0]


def test_seconds_on_gpus_count_for_every_gpu_that_a_stage_holds():
    shared = scored(60.0, 2.0, 4.0, synthesis_gpu_seconds=2.0, quantization_gpu_seconds=1.0)
    assert values_of(("gpu_seconds",), [shared]) == [3.0]


def test_what_was_made_on_two_devices_has_no_seconds_to_compare():
    devices = {"synthesis_seconds": "cpu (x86_64)", "quantization_seconds": "a GPU"}
    assert math.isnan(values_of(("seconds",), [scored(60.0, 2.0, 4.0, devices=devices)])[0])


def test_a_metric_that_was_not_measured_is_no_number():
    missing = dataclasses.replace(scored(60.0, 1.0, 1.0), metrics={})
    assert math.isnan(values_of(("accuracy",), [missing])[0])
