"""The digits task with the shipped models, and the registry of tasks."""

import subprocess
import sys

import pytest
import torch

from backbones import SPECS, Backbone, find_weights, load_backbone
from backbones.digits.images import load_digits_split
from tasks.base import DataError, EvaluationOptions
from tasks.digits import Digits
from tasks.registry import UnknownTask, get_task


@pytest.fixture(scope="module")
def teacher():
    return load_backbone("digits_swin", find_weights(SPECS["digits_swin"]))


@pytest.mark.parametrize("name", ["digits_vit", "digits_swin"])
def test_shipped_models_reach_97_percent(name):
    teacher = load_backbone(name, find_weights(SPECS[name]))
    found = Digits().evaluate(teacher.model, teacher, "report")
    assert found.metrics["top1"] >= 97
    assert found.metrics["top5"] >= 99
    assert found.metrics["agreement"] == 100


def test_evaluation_carries_ids_outcomes_and_outputs_of_the_split(teacher):
    found = Digits().evaluate(teacher.model, teacher, "tune", EvaluationOptions(keep_outputs=True))
    expected = load_digits_split("tune")
    assert found.sample_ids == tuple(f"digits/{position}" for position in expected.positions)
    assert found.outputs.shape == (297, 10)
    assert torch.equal(found.outcomes["top1"], found.outputs.argmax(1) == expected.labels)


def test_agreement_is_with_the_given_reference(teacher):
    task = Digits()
    reference = task.evaluate(teacher.model, teacher, "report", EvaluationOptions(keep_outputs=True)).outputs
    shifted = reference.roll(1, dims=1)
    assert (
        task.evaluate(teacher.model, teacher, "report", EvaluationOptions(reference=shifted)).metrics[
            "agreement"
        ]
        < 5
    )


def test_facts_tell_the_splits_apart():
    tune, report = (Digits().facts(split) for split in ("tune", "report"))
    assert (tune.sample_count, report.sample_count) == (297, 500)
    assert tune.digest != report.digest
    assert report == Digits().facts("report")
    assert report.whole
    assert not tune.whole
    assert tune.labelled


def test_calibration_images_are_seeded_and_of_the_tune_split(teacher):
    images, labels = Digits().calibration_images(teacher, 32, seed=4)
    again, _ = Digits().calibration_images(teacher, 32, seed=4)
    other, _ = Digits().calibration_images(teacher, 32, seed=5)
    assert images.shape == (32, 1, 16, 16)
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    with torch.inference_mode():
        assert (teacher.model(images).argmax(1) == labels).float().mean() > 0.9
    pixels = images * teacher.data.std[0] + teacher.data.mean[0]
    pool = load_digits_split("tune").images.flatten(1)
    assert torch.cdist(pixels.flatten(1), pool).min(dim=1).values.max() < 1e-2


def test_more_images_than_the_tune_split_holds_are_an_error(teacher):
    with pytest.raises(DataError, match="298 images are asked for, but the tune split of digits holds 297"):
        Digits().calibration_images(teacher, 298, seed=0)


def test_a_backbone_of_another_data_set_is_refused(teacher):
    stranger = Backbone(SPECS["deit_tiny"], teacher.model, "x")
    for use in (
        lambda: Digits().evaluate(teacher.model, stranger, "report"),
        lambda: Digits().calibration_images(stranger, 1, seed=0),
    ):
        with pytest.raises(DataError, match="deit_tiny was trained on imagenet"):
            use()


def test_an_unknown_task_names_near_ones():
    with pytest.raises(UnknownTask, match="unknown task 'imagenett': did you mean imagenet"):
        get_task("imagenett")


def test_listing_tasks_loads_no_heavy_library():
    code = (
        "import sys, tasks.registry as r; r.task_names(); print('torch' in sys.modules, 'PIL' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
