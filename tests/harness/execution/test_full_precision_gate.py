from __future__ import annotations

import dataclasses

import pytest

from backbones import SPECS
from harness.execution.full_precision_gate import full_precision_gate
from harness.stages.facts import Cost, Environment, EvaluationFacts

DEIT = SPECS["deit_tiny"]


DETECTOR = dataclasses.replace(DEIT, name="detector", family="yolos", reference_score=46.0)


def reference(score: float, images: int, whole: bool, metric: str = "top1") -> EvaluationFacts:
    return EvaluationFacts(
        environment=Environment(packages={}, python="3", device="cpu", threads=1),
        metrics={metric: score},
        metric=metric,
        images=images,
        samples="",
        whole=whole,
        labelled=True,
        cost=Cost(),
        images_per_second=1.0,
        finished_at="",
    )


@pytest.mark.parametrize(
    ("offset", "passes"), [(0.0, True), (0.15, True), (-0.15, True), (0.2, False), (-0.2, False)]
)
def test_the_whole_set_allows_fifteen_hundredths_of_a_point(offset, passes):
    assert full_precision_gate(DEIT, reference(DEIT.reference_score + offset, 50_000, True)).passed is passes


def test_a_subset_allows_its_sampling_noise_downwards():
    # Standard error at 72.21 % on 400 images: 100 * sqrt(0.7221 * 0.2779 / 400) = 2.2397 points.
    lowest = DEIT.reference_score - 0.15 - 3 * 2.2397
    assert full_precision_gate(DEIT, reference(lowest + 0.01, 400, False)).passed
    refused = full_precision_gate(DEIT, reference(lowest - 0.01, 400, False))
    assert not refused.passed
    assert "--weights deit_tiny=FILE" in refused.message


def test_an_easy_subset_passes_and_is_noted():
    result = full_precision_gate(DEIT, reference(90.0, 400, False))
    assert result.passed
    assert "easier" in result.message


def test_unlabelled_images_have_no_gate():
    assert full_precision_gate(DEIT, reference(1.0, 10, False, "agreement")).passed


@pytest.mark.parametrize(("offset", "passes"), [(0.5, True), (-0.5, True), (0.6, False), (-0.6, False)])
def test_the_whole_set_allows_half_a_point_of_box_ap(offset, passes):
    assert full_precision_gate(DETECTOR, reference(46 + offset, 5000, True, "ap")).passed is passes


def test_a_subset_allows_the_noise_that_image_level_ap_can_have():
    # At most 100 * sqrt(0.46 * 0.54 / 143) = 4.1678 points of standard error.
    lowest = 46 - 0.5 - 3 * 4.1678
    assert full_precision_gate(DETECTOR, reference(lowest + 0.01, 143, False, "ap")).passed
    refused = full_precision_gate(DETECTOR, reference(lowest - 0.01, 143, False, "ap"))
    assert not refused.passed
    assert "full-precision box AP is" in refused.message
    assert full_precision_gate(DETECTOR, reference(70.0, 143, False, "ap")).message.endswith("whole set")
