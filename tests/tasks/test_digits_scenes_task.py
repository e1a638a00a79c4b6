"""The task digits_scenes: its splits, its truth and what calibrates with it."""

from __future__ import annotations

import pytest
import torch

from backbones import DataConfig
from backbones.guidance.outputs import corners
from tasks.base import DataError
from tasks.digits_scenes import DigitsScenes
from tasks.image_files import ReadingReport
from tests.tasks.fake_detectors import Scripted, backbone_of

DATA = DataConfig(
    (1, 96, 96), (0.3,), (0.2,), interpolation="bilinear", shorter_side=96, longer_side=96, pad_multiple=8
)


@pytest.fixture(scope="module")
def task():
    return DigitsScenes()


def truth_script(task):
    scenes = task.scenes("report", DATA, ReadingReport())
    return [(scene.truth.labels, scene.truth.boxes / 96) for scene in scenes]


def test_truth_fed_back_as_predictions_scores_100(task):
    model = Scripted(truth_script(task), classes=10)
    found = task.evaluate(model, backbone_of(model, DATA, "digits_scenes"), "report")
    assert found.metrics["ap"] == found.metrics["agreement"] == pytest.approx(100)
    assert len(found.sample_ids) == task.facts("report").sample_count == 200
    assert found.shown.shape == (6, 100, 6)
    assert "ap_large" not in found.metrics


def test_the_wrong_digit_in_the_right_place_scores_nothing(task):
    model = Scripted([((labels + 1) % 10, boxes) for labels, boxes in truth_script(task)], classes=10)
    found = task.evaluate(model, backbone_of(model, DATA, "digits_scenes"), "report")
    assert found.metrics["ap"] < 1


def test_splits_differ_and_report_is_the_whole_set(task):
    tune, report = task.facts("tune"), task.facts("report")
    assert tune.digest != report.digest
    assert (tune.whole, report.whole) == (False, True)
    assert DigitsScenes().facts("report") == report


def test_calibration_images_come_with_their_targets(task):
    backbone = backbone_of(Scripted([]), DATA, "digits_scenes")
    images, targets = task.calibration_images(backbone, 12, seed=3)
    assert images.shape == (12, 1, 96, 96)
    assert targets.shape == (12, 100, 5)
    pixels = images * 0.2 + 0.3
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    used = targets[targets[..., 0] >= 0]
    assert 2 * 12 <= len(used) <= 5 * 12
    assert corners(used[:, 1:]).min() >= 0
    assert corners(used[:, 1:]).max() <= 1 + 1e-6
    again = task.calibration_images(backbone, 12, seed=3)
    assert torch.equal(images, again[0])
    assert not torch.equal(images, task.calibration_images(backbone, 12, seed=4)[0])


def test_more_calibration_images_than_there_are_is_refused(task):
    backbone = backbone_of(Scripted([]), DATA, "digits_scenes")
    with pytest.raises(DataError, match="tune split of digits_scenes holds 100"):
        task.calibration_images(backbone, 101, 0)


def test_a_classifier_of_digits_is_refused(task):
    with pytest.raises(DataError, match="needs a backbone trained on digits_scenes"):
        task.evaluate(Scripted([]), backbone_of(Scripted([]), DATA, "digits"), "report")
