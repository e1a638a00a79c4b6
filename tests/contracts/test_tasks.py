"""What every registered task promises, on tiny data of its own kind: splits, facts, outcomes, calibration."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from backbones import Backbone, BackboneSpec, DataConfig
from backbones.guidance.outputs import Detections, QueryOutputs, best_per_query
from results.metrics import METRICS
from tasks.base import DataError, EvaluationOptions, Task
from tasks.registry import TaskRefused, UnknownTask, get_task, register_task, task_names
from tests.tasks.fake_detectors import write_coco

COLOUR = DataConfig((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), crop_pct=0.8)
GREY = DataConfig((1, 16, 16), (0.3,), (0.2,))
SCENE = DataConfig(
    (1, 96, 96), (0.3,), (0.2,), interpolation="bilinear", shorter_side=96, longer_side=96, pad_multiple=8
)
PHOTO = DataConfig(
    (3, 64, 64), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), interpolation="bilinear", shorter_side=40, longer_side=64,
    pad_multiple=16,
)  # fmt: skip


class Classifier(nn.Module):
    """Answers by the images' pixels, differently for different images."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        ramp = torch.linspace(0, 40, self.classes)
        return torch.sin(images.flatten(1).mean(dim=1, keepdim=True) * ramp + ramp)


class Detector(nn.Module):
    """Sees one object of class 0 in the middle of every image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.classes = classes

    def forward(self, images: Tensor) -> QueryOutputs:
        logits = torch.full((len(images), 1, self.classes + 1), -30.0)
        logits[..., 0], logits[..., -1] = 3.0, 0.0
        return QueryOutputs(logits, torch.full((len(images), 1, 4), 0.5))

    def detections(self, outputs: QueryOutputs) -> list[Detections]:
        return best_per_query(outputs)


def picture(path: Path) -> None:
    """60 x 40 pixels of one colour that the name decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = zlib.crc32(path.name.encode())
    Image.new("RGB", (60, 40), (colour & 255, colour >> 8 & 255, colour >> 16 & 255)).save(path)


def plant_imagenet(folder: Path) -> Path:
    for wnid in ("n01440764", "n02102040"):
        for index in range(15):
            picture(folder / "val" / wnid / f"{wnid}_{index:02}.JPEG")
    return folder / "val" / "n01440764"


def plant_images(folder: Path) -> Path:
    for index in range(30):
        picture(folder / f"{index:02}.png")
    return folder


def plant_coco(folder: Path) -> Path:
    box = {"category_id": 1, "bbox": [5, 5, 20, 20], "iscrowd": 0, "area": 400}
    write_coco(
        folder,
        [(index, f"{index:02}.png", 60, 40) for index in range(30)],
        [{"id": index + 1, "image_id": index, **box} for index in range(30)],
    )
    for index in range(30):
        picture(folder / "val2017" / f"{index:02}.png")
    return folder / "val2017"


def ships_with_the_project(folder: Path) -> None:
    return None


@dataclass(frozen=True)
class Kind:
    """How a task is tried: what its data looks like, and for which backbones it is."""

    plant: Callable[[Path], Path | None]
    """Fills a folder with tiny data; gives a place whose image files all belong to the data."""
    data: DataConfig
    classes: int
    dataset: str


KINDS = {
    "digits": Kind(ships_with_the_project, GREY, 10, "digits"),
    "digits_scenes": Kind(ships_with_the_project, SCENE, 10, "digits_scenes"),
    "imagenet": Kind(plant_imagenet, COLOUR, 1000, "imagenet"),
    "coco": Kind(plant_coco, PHOTO, 80, "coco"),
    "images": Kind(plant_images, COLOUR, 1000, "imagenet"),
}
every_task = pytest.mark.parametrize("name", task_names())


@pytest.fixture
def opened(tmp_path) -> Callable[[str], Task]:
    """Gives a task on its tiny data, built anew each time."""

    def open_task(name: str) -> Task:
        folder = tmp_path / name
        if not folder.exists():
            folder.mkdir()
            KINDS[name].plant(folder)
        return get_task(name)(folder)

    return open_task


def backbone_for(name: str) -> Backbone:
    kind = KINDS[name]
    detects = get_task(name).detects
    model = Detector(kind.classes) if detects else Classifier(kind.classes)
    family = "yolos" if detects else "vit"
    spec = BackboneSpec("toy", family, "", "", kind.data, kind.classes, kind.dataset)
    return Backbone(spec, model.eval(), "x")


@every_task
def test_a_task_says_what_the_harness_must_know(name):
    task = get_task(name)
    assert task.name == name
    assert task.primary_metric in METRICS
    assert task.data_name in (None, name)
    assert task.unlabelled_fallback in (None, *task_names())
    assert (task.__doc__ or "").strip()


@every_task
def test_the_splits_share_no_sample(name, opened):
    backbone = backbone_for(name)
    ids = [
        set(opened(name).evaluate(backbone.model, backbone, split).sample_ids) for split in ("tune", "report")
    ]
    assert ids[0]
    assert ids[1]
    assert not ids[0] & ids[1]


@every_task
def test_facts_are_the_same_in_every_process_and_differ_between_splits(name, opened):
    for split in ("tune", "report"):
        assert opened(name).facts(split) == opened(name).facts(split)
    assert opened(name).facts("tune").digest != opened(name).facts("report").digest


@pytest.mark.parametrize("name", [name for name in task_names() if get_task(name).data_name])
def test_the_digest_changes_with_the_data(name, opened, tmp_path):
    before = [opened(name).facts(split).digest for split in ("tune", "report")]
    place = KINDS[name].plant(tmp_path / name)
    assert [opened(name).facts(split).digest for split in ("tune", "report")] == before
    # The file is larger than it was: names and labels stay as they were.
    for file in (path for path in place.rglob("*") if path.suffix in (".png", ".JPEG")):
        file.write_bytes(file.read_bytes() + b"\0")
    after = [opened(name).facts(split).digest for split in ("tune", "report")]
    assert after[0] != before[0]
    assert after[1] != before[1]


@every_task
def test_every_sample_has_one_outcome(name, opened):
    task, backbone, steps = opened(name), backbone_for(name), []
    options = EvaluationOptions(batch_size=7, progress=lambda *step: steps.append(step))
    found = task.evaluate(backbone.model, backbone, "report", options)
    count = task.facts("report").sample_count
    assert len(found.sample_ids) == len(set(found.sample_ids)) == count
    assert {column: len(values) for column, values in found.outcomes.items()} == dict.fromkeys(
        found.outcomes, count
    )
    assert task.primary_metric in found.outcomes
    assert math.isfinite(found.metrics[task.primary_metric])
    assert all(type(value) is float for value in found.metrics.values())
    assert steps[-1] == (count, count, {})
    assert found.outputs is None


@every_task
def test_kept_outputs_serve_as_a_reference(name, opened):
    task, backbone = opened(name), backbone_for(name)
    kept = task.evaluate(backbone.model, backbone, "report", EvaluationOptions(keep_outputs=True)).outputs
    assert kept.dtype == torch.float32
    assert len(kept) == task.facts("report").sample_count
    again = task.evaluate(backbone.model, backbone, "report", EvaluationOptions(reference=kept))
    assert again.metrics["agreement"] == 100
    with pytest.raises(DataError):
        task.evaluate(backbone.model, backbone, "report", EvaluationOptions(reference=kept[:-1]))


@every_task
def test_calibration_images_are_drawn_by_seed(name, opened):
    task, backbone = opened(name), backbone_for(name)
    count = 2
    images, labels = task.calibration_images(backbone, count, seed=0)
    assert images.shape == (count, *backbone.data.input_size)
    assert images.dtype == torch.float32
    assert len(labels) == count
    again = opened(name).calibration_images(backbone, count, seed=0)
    assert torch.equal(images, again[0])
    assert torch.equal(labels, again[1])
    others = [task.calibration_images(backbone, count, seed=seed)[0] for seed in range(1, 6)]
    assert not all(torch.equal(images, other) for other in others)


@every_task
def test_more_calibration_images_than_there_are_is_one_sentence(name, opened):
    task = opened(name)
    with pytest.raises(DataError, match="images are asked for") as caught:
        task.calibration_images(backbone_for(name), task.facts("tune").sample_count + 1, seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in task_names() if get_task(name).data_name])
def test_a_missing_folder_is_one_sentence_with_the_way_out(name, tmp_path):
    for task in (get_task(name)(), get_task(name)(tmp_path / "absent")):
        with pytest.raises(DataError, match=f"give --data {name}=DIR") as caught:
            task.facts("report")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in task_names() if get_task(name).needs_own_backbones])
def test_a_backbone_of_other_classes_is_refused(name, opened):
    backbone = backbone_for(name)
    spec = BackboneSpec("stranger", backbone.spec.family, "", "", backbone.data, 7, "elsewhere")
    with pytest.raises(DataError, match="stranger"):
        opened(name).evaluate(backbone.model, Backbone(spec, backbone.model, "x"), "report")


class Made(get_task("images")):
    """Pictures of a plug-in."""

    name = "made"
    data_name = "made"


@pytest.fixture
def own_tasks(monkeypatch):
    """Tasks registered from here on are forgotten after the test."""
    monkeypatch.setattr("tasks.registry._registered", {})


@pytest.mark.usefixtures("own_tasks")
def test_a_registered_task_is_listed_and_found():
    assert register_task(Made) is Made
    assert register_task(Made) is Made
    assert task_names()[-1] == "made"
    assert get_task("made") is Made
    with pytest.raises(UnknownTask, match="unknown task 'mde': did you mean made"):
        get_task("mde")


@pytest.mark.usefixtures("own_tasks")
def test_what_is_no_task_or_takes_a_name_is_refused():
    with pytest.raises(TaskRefused, match=r"derive the class from tasks\.base\.Task"):
        register_task(int)
    register_task(Made)
    for name in ("made", "digits"):
        with pytest.raises(TaskRefused, match=f"there is a task '{name}' already"):
            register_task(type("Other", (Made,), {"name": name}))


@pytest.mark.usefixtures("own_tasks")
def test_installed_packages_offer_tasks_and_a_bad_one_is_skipped(monkeypatch):
    monkeypatch.setattr(
        "tasks.registry.entry_points_of", lambda group: iter([("number", int), ("made", Made)])
    )
    from tasks import registry

    registry._load_entry_points.cache_clear()
    with pytest.warns(UserWarning, match="plug-in number is skipped: .* is no task"):
        assert "made" in task_names()
    assert get_task("made") is Made
