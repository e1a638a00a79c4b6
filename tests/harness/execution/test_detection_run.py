"""From a detector's evaluation to its record, its leaderboard row and its pictures, in one store."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from backbones import SPECS, DataConfig
from harness.cli.main import app
from harness.planning.request import Machine, Places, Request, Rows
from harness.planning.session import open_session
from harness.reporting.detection_pictures import save_comparison, save_detection_pictures
from harness.reporting.image_grids import Box, from_pixels, with_boxes
from harness.reporting.records import records_of
from harness.stages.facts import evaluation_facts, write_artifact
from harness.stages.run_stage import run_stage
from results.leaderboard import leaderboard
from results.statistics import pack_scores
from tasks.coco import Coco
from tasks.detection import DetectionTask
from tasks.detection_scoring import Found, rows_of
from tasks.digits_scenes import DigitsScenes
from tasks.image_files import ReadingReport
from tasks.registry import get_task
from tests.harness.stages.test_facts import IMAGES

SUITE = "task: {task}\nbackbones: [{backbone}]\nbits: [w4a4]\nmethods: []\nbudget: smoke\n"
RED = (230, 25, 75)


def session_of(folder, task="digits_scenes", backbone="digits_yolos"):
    file = folder / "detection_try.yaml"
    file.write_text(SUITE.format(task=task, backbone=backbone))
    return open_session(
        Request(
            Rows(suite=str(file)),
            Places(store=str(folder / "store")),
            Machine(device="cpu", cpus_per_trial=1),
        )
    )


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A suite whose full-precision stage ran; a synthesis and an evaluation are stored by hand."""
    session = session_of(tmp_path_factory.mktemp("run"))
    reference = session.plan.references()["digits_yolos"]
    assert run_stage(reference, session.context).status == "done"
    (trial,) = [t for t in session.plan.trials if t.method == "gaussian_noise"]
    targets = torch.full((5, 3, 5), -1.0)
    targets[:, 0] = torch.tensor([0.0, 0.5, 0.5, 0.5, 0.5])
    images = {"images": torch.zeros(5, 1, 96, 96), "labels": targets}
    write_artifact(session.store, trial.synthesis, images, IMAGES)
    boxes = torch.tensor([[24.0, 24.0, 72.0, 72.0]], dtype=torch.float64)
    rows = rows_of(Found(boxes, torch.tensor([0]), torch.tensor([0.75]).double()), (96, 96))
    outcomes = {"outcomes.ap": torch.rand(200, generator=torch.Generator().manual_seed(0))}
    metrics = {"ap": 50.0, "ap50": 70.0, "agreement": 60.0}
    facts = dataclasses.replace(evaluation_facts(session.store, reference.key), metrics=metrics)
    tensors = {"shown": rows.repeat(6, 1, 1), **outcomes}
    write_artifact(session.store, trial.evaluation, tensors, facts)
    return session


def test_boxes_are_stored_in_single_precision(session):
    key = session.plan.references()["digits_yolos"].key
    stored, facts = session.store.tensors(key), evaluation_facts(session.store, key)
    assert stored["outputs"].dtype == torch.float32
    assert stored["outputs"].shape == (200, 100, 6)
    assert torch.equal(stored["shown"], stored["outputs"][:6])
    assert facts.metric == "ap"
    assert facts.whole
    assert "kl" not in facts.metrics


def test_records_of_detectors_hold_the_ap_of_every_image_and_no_kl(session):
    records = {r.method: r for r in records_of(session.plan, session.store)}
    fp32, quantized = records["fp32"], records["gaussian_noise"]
    assert fp32.metrics["agreement"] == 100
    assert "kl" not in fp32.metrics
    assert fp32.outcomes == {}
    expected = session.store.tensors(quantized.trial)["outcomes.ap"]
    assert quantized.scores == {"ap": pack_scores(expected)}
    assert type(quantized).from_json(json.loads(json.dumps(quantized.to_json()))) == quantized
    row = leaderboard(records.values()).frame().set_index("method").loc["gaussian_noise"]
    assert (row["mean"], row["ap50"], row["agreement"], row["rank"]) == (50, 70, 60, 1)


def test_a_run_leaves_pictures_of_detections_and_of_the_images_made(session):
    folder = save_detection_pictures(session)
    assert folder == session.store.root / "pictures" / "detection_try"
    assert {file.name for file in folder.iterdir()} == {
        "detections_digits_yolos_w4a4.png",
        "images_gaussian_noise_digits_yolos_seed_0.png",
    }
    with Image.open(folder / "detections_digits_yolos_w4a4.png") as sheet:
        # Truth, full precision and one method, each 288 pixels wide; six images under a line of captions.
        assert sheet.size == (3 * 288 + 2 * 4, 16 + 6 * 288 + 5 * 4)
        assert sheet.getpixel((2 * 292 + 72, 16 + 200)) == RED
    with Image.open(folder / "images_gaussian_noise_digits_yolos_seed_0.png") as grid:
        assert grid.size == (4 * 288 + 3 * 4, 2 * 288 + 4)
        assert [grid.getpixel((x * 292 + 72, 200)) for x in range(4)] == [RED] * 4


def test_a_classification_run_leaves_no_detection_pictures(tmp_path):
    session = session_of(tmp_path, "digits", "digits_vit")
    assert save_detection_pictures(session) is None
    assert not (session.store.root / "pictures").exists()


def test_detections_below_a_half_are_not_drawn(tmp_path):
    scene = next(DigitsScenes().scenes("report", DataConfig((1, 96, 96), (0.3,), (0.2,)), ReadingReport()))
    boxes = torch.tensor([[0.0, 0.0, 96.0, 96.0]] * 2, dtype=torch.float64)
    found = {
        name: rows_of(Found(boxes[:1], torch.tensor([0]), torch.tensor([score]).double()), (96, 96))[None]
        for name, score in (("sure", 0.5), ("unsure", 0.49))
    }
    save_comparison([scene], found, DigitsScenes.class_names, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert [sheet.getpixel((x * 292, 16 + 144)) == RED for x in (1, 2)] == [True, False]


def test_boxes_outside_or_reversed_can_be_drawn():
    (picture,) = from_pixels(torch.zeros(1, 3, 40, 60, dtype=torch.uint8))
    boxes = [Box((-1, -1, 2, 2), 0, "a"), Box((0.8, 0.8, 0.2, 0.2), 1, "b"), Box((5, 5, 6, 6), 2, "c")]
    assert with_boxes(picture, boxes).size == (60, 40)


@pytest.mark.parametrize("task", [Coco, DigitsScenes])
def test_detection_tasks_name_every_class(task):
    assert issubclass(get_task(task.name), DetectionTask)
    assert len(task.class_names) == len(set(task.class_names)) == (80 if task is Coco else 10)


@pytest.mark.parametrize(
    ("task", "backbone", "fault"),
    [
        ("coco", "digits_yolos", "digits_yolos is trained on digits_scenes, the suite's task is coco"),
        ("digits_scenes", "digits_vit", "digits_vit is trained on digits, the suite's task is digits_scenes"),
        ("digits", "digits_yolos", "digits_yolos is trained on digits_scenes, the suite's task is digits"),
        ("images", "digits_yolos", "digits_yolos detects objects, the task images needs a classifier"),
    ],
)
def test_a_backbone_of_another_task_is_refused(tmp_path, task, backbone, fault):
    with pytest.raises(Exception, match=fault):
        session_of(tmp_path, task, backbone)


def test_the_tables_of_backbones_and_tasks_know_detectors():
    listed = json.loads(CliRunner().invoke(app, ["list", "backbones", "--format", "json"]).stdout)
    rows = {row["name"]: row for row in listed}
    assert rows["digits_yolos"]["transform"] == "resized to 96, at most 96, padded to 12s"
    assert rows["deit_tiny"]["transform"] == "crop 0.875"
    assert rows["deit_tiny"]["reference score"] == SPECS["deit_tiny"].reference_score
    tasks = json.loads(CliRunner().invoke(app, ["list", "tasks", "--format", "json"]).stdout)
    assert {"name": "coco", "metric": "ap", "data": "--data coco=DIR"}.items() <= tasks[-2].items()


def test_doctor_tells_where_coco_is_to_be_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_DATA_COCO", str(tmp_path))
    text = " ".join(CliRunner().invoke(app, ["doctor", "--store", str(tmp_path)]).stdout.split())
    assert "data coco not usable" in text
    assert "pycocotools" in text
