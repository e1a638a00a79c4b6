"""The task coco: reading, resizing, padding, batching and scoring, and faults of annotations."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from backbones import DataConfig
from backbones.guidance.outputs import Detections, RegionOutputs, centres, corners
from backbones.preprocessing.transforms import canvas_size, to_canvas, to_image
from tasks.base import DataError, EvaluationOptions
from tasks.coco import Coco
from tasks.coco_annotations import CATEGORIES, read_annotations
from tasks.image_files import ReadingReport, shuffled
from tests.tasks.fake_detectors import Scripted, backbone_of, direct, write_coco
from tests.tasks.test_image_tasks import save_picture

DATA = DataConfig(
    (3, 64, 64), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), interpolation="bilinear", shorter_side=40, longer_side=64,
    pad_multiple=16,
)  # fmt: skip
SIZES = ((60, 40), (60, 40), (40, 60), (80, 50), (33, 47))


def annotation(number, image, box, category=1, **more):
    entry = {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
    return {**entry, "area": box[2] * box[3], **more} if isinstance(box, list) and len(box) == 4 else entry


@pytest.fixture
def coco(tmp_path):
    """20 pictures of five sizes, 17 with one to three objects, two without."""
    images, annotations = [], []
    for k in range(20):
        width, height = SIZES[k % 5]
        images.append((1000 - k, f"{k:02}.png", width, height))
        Image.new("RGB", (width, height), (10 * k, 100, 50)).save(made(tmp_path, "val2017") / f"{k:02}.png")
        for row in range(0 if k % 8 == 7 else 1 + k % 3):
            box = [3 + 5 * row, 2 + row, 12 + k / 3, 10.5]
            annotations.append(annotation(len(annotations) + 1, 1000 - k, box, (1, 3, 90)[(k + row) % 3]))
    write_coco(tmp_path, images, annotations)
    return tmp_path


def made(folder, name):
    (folder / name).mkdir(exist_ok=True)
    return folder / name


def scenes_of(task, data=DATA, split="report"):
    return list(task.scenes(split, data, ReadingReport()))


def truth_script(scenes, data=DATA, change=lambda boxes: boxes):
    """What a detector has to say to find exactly what is there, or boxes that `change` gives instead."""
    script = []
    for scene in scenes:
        single = ~scene.truth.crowd
        shares = change(scene.truth.boxes[single]) / torch.tensor([*scene.truth.size, *scene.truth.size])
        canvas = canvas_size(scene.size, data)
        script.append((scene.truth.labels[single], to_canvas(shares, scene.size, canvas)))
    return script


def test_truth_fed_back_as_predictions_scores_100(coco):
    task = Coco(coco)
    model = Scripted(truth_script(scenes_of(task)))
    found = task.evaluate(model, backbone_of(model, DATA), "report", EvaluationOptions(keep_outputs=True))
    assert found.metrics["ap"] == found.metrics["ap75"] == found.metrics["agreement"] == pytest.approx(100)
    assert found.metrics.keys() == {"ap", "ap50", "ap75", "ap_small", "agreement"}
    assert (found.outcomes["ap"] == 1).all()
    assert found.outcomes["ap"].dtype == torch.float32
    assert found.outputs.shape == (18, 100, 6)
    assert torch.equal(found.shown, found.outputs[:6])


def test_images_are_normalized_resized_and_padded_with_zeros(coco):
    task = Coco(coco)
    scenes = scenes_of(task)
    model = Scripted(truth_script(scenes))
    task.evaluate(model, backbone_of(model, DATA), "report", EvaluationOptions(batch_size=1))
    assert {tuple(images.shape[1:]) for images in model.seen} == {(3, 48, 64), (3, 64, 48)}
    for scene, images in zip(scenes, model.seen, strict=True):
        width, height = scene.size
        colour = (scene.pixels[:, 0, 0] / 255 - torch.tensor(DATA.mean)) / torch.tensor(DATA.std)
        torch.testing.assert_close(
            images[0, :, :height, :width], colour.view(3, 1, 1).expand(3, height, width)
        )
        assert (images[0, :, height:] == 0).all()
        assert (images[0, :, :, width:] == 0).all()


class Weighing(torch.nn.Module):
    """Answers by the brightness of the image alone."""

    def forward(self, images):
        level = images.mean(dim=(1, 2, 3)).sigmoid()
        share = torch.stack([level, 1 - level, 0.3 * level, 0.4 * level], dim=-1)
        boxes = torch.stack([share, share.flip(-1)], dim=1)
        scores = torch.stack([level, 1 - level], dim=1)
        found = [Detections(s, torch.tensor([0, 2]), corners(b)) for s, b in zip(scores, boxes, strict=True)]
        return RegionOutputs((images,), (), (), tuple(found))

    def detections(self, outputs):
        return list(outputs.detections)


def test_a_score_does_not_depend_on_what_else_is_in_a_batch(coco):
    task, model = Coco(coco), Weighing()
    model.anchor = torch.nn.Parameter(torch.zeros(1))
    runs = [
        task.evaluate(
            model, backbone_of(model, DATA), "report", EvaluationOptions(batch_size=size, keep_outputs=True)
        )
        for size in (1, 4, 32)
    ]
    torch.testing.assert_close(runs[0].outputs, runs[1].outputs)
    torch.testing.assert_close(runs[0].outputs, runs[2].outputs)
    assert runs[0].sample_ids == runs[1].sample_ids == runs[2].sample_ids
    assert runs[0].metrics == pytest.approx(runs[2].metrics)


def test_only_images_of_one_canvas_run_together(coco):
    task = Coco(coco)
    model = Scripted(truth_script(scenes_of(task)))
    task.evaluate(model, backbone_of(model, DATA), "report", EvaluationOptions(batch_size=2))
    assert max(map(len, model.seen)) == 2
    assert sum(map(len, model.seen)) == 18


def test_a_batch_of_large_images_is_cut_to_a_number_of_pixels(coco, monkeypatch):
    monkeypatch.setattr("tasks.detection._BATCH_PIXELS", 3000)  # less than one canvas of 64 x 48
    task = Coco(coco)
    model = Scripted(truth_script(scenes_of(task)))
    task.evaluate(model, backbone_of(model, DATA), "report")
    assert [len(images) for images in model.seen] == [1] * 18


def test_progress_and_sample_names_follow_the_file_names(coco):
    task, steps = Coco(coco), []
    model = Scripted(truth_script(scenes_of(task)))
    found = task.evaluate(
        model,
        backbone_of(model, DATA),
        "report",
        EvaluationOptions(progress=lambda *step: steps.append(step[:2])),
    )
    assert steps[-1] == (18, 18)
    assert list(found.sample_ids) == sorted(found.sample_ids)


def test_agreement_is_with_the_reference_or_with_the_model_beside(coco):
    task = Coco(coco)
    full = Scripted(truth_script(scenes_of(task)))
    backbone = backbone_of(full, DATA)
    rows = task.evaluate(full, backbone, "report", EvaluationOptions(keep_outputs=True)).outputs
    away = truth_script(scenes_of(task), change=lambda boxes: boxes + 1000)
    student = Scripted(away[:9] + full.script[9:])
    stored = task.evaluate(student, backbone, "report", EvaluationOptions(reference=rows))
    full.seen.clear()
    student.seen.clear()
    beside = task.evaluate(student, backbone, "report")
    assert stored.metrics == beside.metrics
    expected = [float(i >= 9 or not len(labels)) for i, (labels, _) in enumerate(full.script)]
    assert stored.outcomes["agreement"].tolist() == expected
    assert stored.metrics["agreement"] == pytest.approx(100 * sum(expected) / 18)


def test_a_reference_of_other_images_is_refused(coco):
    task = Coco(coco)
    model = Scripted(truth_script(scenes_of(task)))
    with pytest.raises(DataError, match="detections are of 5 images, but 18 were read"):
        task.evaluate(
            model, backbone_of(model, DATA), "report", EvaluationOptions(reference=torch.zeros(5, 100, 6))
        )


def test_outputs_that_are_not_finite_find_nothing_and_are_noted(coco):
    task = Coco(coco)
    model = Scripted(truth_script(scenes_of(task)))
    model.script[3][1][0, 0] = float("nan")
    found = task.evaluate(model, backbone_of(model, DATA), "report", EvaluationOptions(keep_outputs=True))
    assert (found.outputs[3, :, 0] == -1).all()
    assert found.outcomes["ap"][3] == 0
    assert found.metrics["ap"] < 100
    assert found.notes[-1] == (
        "1 of 18 images gave outputs that are not finite; they count as without detections"
    )


def test_a_two_stage_detector_with_a_broken_feature_map_finds_nothing_there(coco):
    class Overflowing(Weighing):
        def forward(self, images):
            found = super().forward(images)
            broken = images.clone()
            broken[0, 0, 0, 0] = float("inf")
            return found._replace(features=(images, broken))

    model = Overflowing()
    model.anchor = torch.nn.Parameter(torch.zeros(1))
    found = Coco(coco).evaluate(
        model, backbone_of(model, DATA), "report", EvaluationOptions(batch_size=1, keep_outputs=True)
    )
    assert (found.outputs[..., 0] == -1).all()
    assert found.notes[-1].startswith("18 of 18 images gave outputs that are not finite")


class Masking(Scripted):
    """A script whose every mask fills its box."""

    def detections(self, outputs):
        return [d._replace(masks=torch.ones(len(d.scores), 28, 28)) for d in super().detections(outputs)]


def test_masks_are_scored_on_the_original_image(coco):
    def outline(content):
        for entry in content["annotations"]:
            left, top, width, height = entry["bbox"]
            right, bottom = left + width, top + height
            entry["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]

    edited(coco, outline)
    task = Coco(coco)
    model = Masking(truth_script(scenes_of(task)))
    found = task.evaluate(model, backbone_of(model, DATA), "report")
    assert found.metrics["ap"] == pytest.approx(100)
    assert found.metrics["mask_ap50"] == pytest.approx(100)
    # Corners are rounded where a mask is read between its cells, which counts on objects of 15 pixels.
    assert 75 < found.metrics["mask_ap"] < 100


def test_masks_without_annotated_outlines_are_not_scored_and_noted(coco):
    task = Coco(coco)
    scenes = scenes_of(task)
    model = Masking(truth_script(scenes))
    found = task.evaluate(model, backbone_of(model, DATA), "report")
    assert not any(name.startswith("mask_") for name in found.metrics)
    objects = sum(len(scene.truth.labels) for scene in scenes)
    assert found.notes[-1].startswith(f"no mask AP: {objects} annotated objects")


def test_a_detector_of_other_data_is_refused(coco):
    model = Scripted([])
    with pytest.raises(DataError, match="toy was trained on digits_scenes: the task coco needs"):
        Coco(coco).evaluate(model, backbone_of(model, DATA, "digits_scenes"), "report")


def test_splits_are_disjoint_fixed_and_follow_the_truth(coco):
    task = Coco(coco)
    names = {split: [s.name for s in task.samples(split)] for split in ("tune", "report")}
    assert (len(names["tune"]), len(names["report"])) == (2, 18)
    assert not set(names["tune"]) & set(names["report"])
    facts = task.facts("report")
    assert (facts.sample_count, facts.labelled, facts.whole) == (18, True, False)
    assert facts.description == "18 of 20 images of val2017"
    assert Coco(coco).facts("report") == facts
    file = coco / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text().replace("10.5", "11.5"))
    assert Coco(coco).facts("report").digest != facts.digest


def test_train2017_serves_to_tune_where_it_lies_beside(coco):
    alone = Coco(coco).facts("report")
    for k in range(4):
        save_picture(coco / "train2017" / f"{k:02}.png", k)
    val = coco / "annotations" / "instances_val2017.json"
    kept = val.read_text()
    train = write_coco(
        coco, [(k + 1, f"{k:02}.png", 24, 20) for k in range(4)], [annotation(1, 2, [2, 3, 9, 8])]
    )
    train.rename(train.with_name("instances_train2017.json"))
    val.write_text(kept)
    task = Coco(coco)
    assert all(s.name.startswith("train2017/") for s in task.samples("tune"))
    assert (task.facts("tune").sample_count, task.facts("report").sample_count) == (4, 20)
    assert task.facts("report").digest != alone.digest
    _, targets = task.calibration_images(backbone_of(Scripted([]), DATA), 4, 0)
    assert (targets[:, 0, 0] == 0).sum() == 1


def test_calibration_images_fit_on_one_canvas_with_their_targets(coco):
    task, backbone = Coco(coco), backbone_of(Scripted([]), DATA)
    images, targets = task.calibration_images(backbone, 2, seed=1)
    assert images.shape == (2, 3, 64, 64)
    assert targets.shape == (2, 100, 5)
    scenes = {scene.name: scene for scene in scenes_of(task, split="tune")}
    names = [sample.name for sample in shuffled(task.samples("tune"), 1)]
    for name, image, target in zip(names, images, targets, strict=True):
        scene, used = scenes[name], target[target[:, 0] >= 0]
        width, height = scene.truth.size
        scale = 64 / max(width, height)
        torch.testing.assert_close(
            corners(used[:, 1:]) * 64 / scale, scene.truth.boxes.float(), atol=0.6, rtol=0
        )
        assert used[:, 0].long().tolist() == scene.truth.labels.tolist()
        empty = image[:, round(height * scale) :] if width > height else image[:, :, round(width * scale) :]
        assert (empty == 0).all()
    again = task.calibration_images(backbone, 2, seed=1)
    assert torch.equal(images, again[0])


def test_more_calibration_images_than_there_are_is_refused(coco):
    with pytest.raises(DataError, match="9 images are asked for, but the tune split holds only 2 readable"):
        Coco(coco).calibration_images(backbone_of(Scripted([]), DATA), 9, 0)


def test_unreadable_and_mismatched_pictures_are_left_out_and_named(coco):
    task = Coco(coco)
    names = [s.name for s in task.samples("report")]
    (coco / "val2017" / names[0]).write_bytes(b"\x89PNG not really")
    Image.new("RGB", (90, 30)).save(coco / "val2017" / names[1])
    Image.new("L", SIZES[int(names[2][:2]) % 5]).save(coco / "val2017" / names[2])
    model = Scripted(truth_script(scenes_of(Coco(coco))))
    found = Coco(coco).evaluate(model, backbone_of(model, DATA), "report")
    assert len(found.sample_ids) == 16
    assert f"unreadable images left out: 1 ({names[0]})" in found.notes
    assert f"images left out whose shape is not the annotated one: 1 ({names[1]})" in found.notes
    assert f"images converted from another colour mode: 1 ({names[2]} L)" in found.notes
    assert found.metrics["ap"] == pytest.approx(100)


def test_missing_and_unlisted_files_are_left_out_and_named(coco):
    (coco / "val2017" / "03.png").unlink()
    save_picture(coco / "val2017" / "inner" / "more.png", 1)
    task = Coco(coco)
    assert "annotated images left out whose file is not there: 1 (03.png)" in task.data_notes()
    assert "images left out that the annotations do not list: 1 (inner/more.png)" in task.data_notes()
    assert sum(task.facts(split).sample_count for split in ("tune", "report")) == 19


def notes_of(tmp_path, *annotations, **categories):
    images = [(1, "a.png", 60, 40), (2, "b.png", 60, 40)]
    good = annotation(1, 1, [5, 5, 10, 10])
    found = read_annotations(write_coco(tmp_path, images, [good, *annotations], **categories))
    return found, " | ".join(found.notes)


@pytest.mark.parametrize(
    ("bad", "note"),
    [
        (annotation(7, 99, [5, 5, 10, 10]), "annotations left out whose image is not listed: 1 (7)"),
        (annotation(7, 1, [5, 5, 10, 10], "dog"), "left out whose category is no whole number: 1 (7)"),
        (annotation(7, 1, [5, 5, 10, 10], 1.5), "left out whose category is no whole number: 1 (7)"),
        (annotation(7, 1, [5, 5, 0, 10]), "annotations left out whose box has no size: 1 (7)"),
        (annotation(7, 1, [5, 5, 10, -1]), "whose box has no size: 1 (7)"),
        (annotation(7, 1, [60, 5, 10, 10]), "annotations left out whose box is outside the image: 1 (7)"),
        (annotation(7, 1, [-9, 5, 9, 10]), "whose box is outside the image: 1 (7)"),
        (annotation(7, 1, [5, 5, 10]), "annotations left out whose box is not four numbers: 1 (7)"),
        (annotation(7, 1, [5, 5, 10, float("nan")]), "whose box is not four numbers: 1 (7)"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_left_out_counted_and_named(tmp_path, bad, note):
    found, notes = notes_of(tmp_path, bad)
    assert note in notes
    assert found.truths["a.png"].boxes.tolist() == [[5, 5, 15, 15]]
    assert "images without an object, kept as background: 1 (b.png)" in notes


def test_a_box_beyond_the_border_is_cut_but_not_one_that_exceeds_it_by_a_hair(tmp_path):
    found, notes = notes_of(
        tmp_path, annotation(7, 1, [-3, 5, 10, 50]), annotation(8, 2, [50, 30, 10.4, 10.4])
    )
    assert "boxes cut at the border of their image: 1 (7)" in notes
    assert found.truths["a.png"].boxes[1].tolist() == [0, 5, 7, 40]
    assert found.truths["b.png"].boxes.tolist() == [[50, 30, 60.4, 40.4]]


def test_an_area_that_is_missing_is_that_of_the_box(tmp_path):
    bare = annotation(7, 2, [5, 5, 10, 12])
    del bare["area"]
    found, notes = notes_of(tmp_path, bare)
    assert "areas taken from the box, as none is given: 1 (7)" in notes
    assert found.truths["b.png"].areas.tolist() == [120]


def test_labels_are_the_places_among_cocos_categories_in_spite_of_gaps(tmp_path):
    boxes = [annotation(10 + c, 2, [5, 5, 10, 10], c) for c in (13, 90, 1)]
    found, _ = notes_of(tmp_path, *boxes, categories=CATEGORIES.items())
    # Ids 12, 26, 29, 30, 45, 66, 68, 69, 71 and 83 do not exist.
    assert found.truths["b.png"].labels.tolist() == [11, 79, 0]
    assert len(CATEGORIES) == 80
    assert list(CATEGORIES)[-1] == 90
    assert not {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(CATEGORIES)


def test_segmentations_that_nobody_can_read_count_as_none(tmp_path):
    good = [[5, 5, 15, 5, 15, 15]]
    file = write_coco(
        tmp_path,
        [(1, "a.png", 60, 40), (2, "b.png", 60, 40), (3, "c.png", 60, 40)],
        [
            annotation(1, 1, [5, 5, 10, 10], segmentation=good),
            annotation(2, 2, [5, 5, 10, 10], segmentation=[[5, 5, 15, 5]]),
            annotation(3, 3, [5, 5, 10, 10], segmentation={"counts": [10, 5], "size": [40, 60]}),
        ],
    )
    truths = read_annotations(file).truths
    assert truths["a.png"].segments == (good,)
    assert truths["b.png"].segments is None
    assert truths["c.png"].segments is not None


def edited(coco, change):
    file = coco / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("categories"), "the file has no categories"),
        (lambda c: c.update(images={}), "'images' is no list"),
        (lambda c: c["annotations"][4].pop("bbox"), "annotation 4 has no bbox"),
        (
            lambda c: c["annotations"].append(7),
            r"annotation \d+ has no image_id and no category_id and no bbox",
        ),
        (lambda c: c["images"][2].pop("width"), "image 2 has no width"),
        (lambda c: c["images"][2].update(height=0), "image 2 needs a whole number as id, width and height"),
        (lambda c: c["images"][2].update(id="x"), "image 2 needs a whole number as id"),
        (lambda c: c["images"][2].update(file_name=""), "the file name '' of image 998 is no text"),
        (
            lambda c: c["images"][2].update(file_name="../val2017/03.png"),
            r"lists \.\./val2017/03.png and 03.png, but .*val2017 holds only 03.png for both",
        ),
        (lambda c: c["annotations"][2].update(category_id=12), r"'categories' does not list \(12\)"),
        (lambda c: c.update(categories=[]), r"'categories' does not list \(1, 3, 90\)"),
        (
            lambda c: (
                c["categories"].append({"id": 0, "name": "helmet"}),
                [entry.update(category_id=0) for entry in c["annotations"][:3]],
            ),
            r"3 of \d+ annotations are of categories that COCO does not have \(0 'helmet'\)",
        ),
        (
            lambda c: [entry.update(image_id=7) for entry in c["annotations"][5:]],
            r"of \d+ annotations left out whose image is not listed: \d+ \(.*most of the file cannot be used",
        ),
        (lambda c: c["images"].append({**c["images"][0], "file_name": "z.png"}), "is listed twice"),
        (lambda c: c["images"].append({**c["images"][0], "id": 5}), r"image 5 \(00.png\) is listed twice"),
        (lambda c: c["categories"][1].update(id=2), "category 2 is 'car', in COCO it is 'bicycle'"),
        (lambda c: c["categories"][1].pop("name"), "a category has no name"),
    ],
)
def test_an_ambiguous_annotation_file_is_refused_in_one_sentence(coco, change, message):
    edited(coco, change)
    with pytest.raises(DataError, match=message) as error:
        Coco(coco).facts("report")
    assert "\n" not in str(error.value)
    assert "instances_val2017.json" in str(error.value)


def test_a_truncated_file_is_refused(coco):
    file = coco / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text()[:400])
    with pytest.raises(DataError, match=r"instances_val2017.json is not valid JSON \(.*download it again"):
        Coco(coco).facts("tune")


def test_folders_that_are_not_there_are_named(coco, tmp_path):
    with pytest.raises(DataError, match="no data for the task coco: give --data coco=DIR"):
        Coco(None).facts("report")
    (coco / "val2017").rename(coco / "val")
    with pytest.raises(DataError, match=r"no folder .*val2017"):
        Coco(coco).facts("report")
    (coco / "annotations" / "instances_val2017.json").rename(coco / "elsewhere.json")
    with pytest.raises(DataError, match=r"no annotations at .*instances_val2017.json"):
        Coco(coco).facts("report")


def test_a_folder_of_other_pictures_is_refused(coco):
    for file in (coco / "val2017").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"val2017 holds none of the 20 images that .*json lists"):
        Coco(coco).facts("report")


def test_a_split_without_any_object_cannot_be_scored(coco):
    edited(coco, lambda content: content.update(annotations=[]))
    task, model = Coco(coco), Scripted([([], torch.zeros(0, 4))] * 18)
    with pytest.raises(DataError, match="the report split of coco shows no object to find"):
        task.evaluate(model, backbone_of(model, DATA), "report")


SMALL = DataConfig(
    (3, 256, 256), (0.5,) * 3, (0.5,) * 3, interpolation="bilinear", shorter_side=96, longer_side=160,
    pad_multiple=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def sample(shared_data):
    """The real sample's folder and its report images."""
    folder = shared_data / "coco_sample"
    return folder, scenes_of(Coco(folder), SMALL)


@pytest.mark.shared
def test_the_real_sample_scores_100_where_the_truth_is_fed_back(sample):
    folder, scenes = sample
    task, model = Coco(folder), Scripted(truth_script(scenes, SMALL))
    found = task.evaluate(model, backbone_of(model, SMALL), "report")
    assert (task.facts("tune").sample_count, len(found.sample_ids)) == (15, 143)
    assert all(value == pytest.approx(100) for value in found.metrics.values())
    assert len(found.metrics) == 7
    assert found.notes == ()


@pytest.mark.shared
@pytest.mark.parametrize("kind", ["shifted", "shuffled"])
def test_the_real_sample_scores_exactly_what_pycocotools_gives(sample, kind, monkeypatch):
    folder, scenes = sample
    generator = torch.Generator().manual_seed(0)
    change = {
        "shifted": lambda boxes: boxes + (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2) * 0.15,
        "shuffled": lambda boxes: boxes[torch.randperm(len(boxes), generator=generator)],
    }[kind]
    task, model = Coco(folder), Scripted(truth_script(scenes, SMALL, change))
    monkeypatch.setattr(task, "scenes", lambda *_: iter(scenes))  # reading them once is enough
    found = task.evaluate(model, backbone_of(model, SMALL), "report")
    file = folder / "annotations" / "instances_val2017.json"
    ids = {image["file_name"]: image["id"] for image in json.loads(file.read_text())["images"]}
    results = []
    for image, (scene, (labels, boxes)) in enumerate(zip(scenes, model.script, strict=True)):
        canvas = canvas_size(scene.size, SMALL)
        shares = to_image(corners(centres(boxes.float())).double(), scene.size, canvas)
        pixels = (shares * torch.tensor([*scene.truth.size] * 2)).tolist()
        for row, (label, box) in enumerate(zip(labels.tolist(), pixels, strict=True)):
            result = {"image_id": ids[scene.name], "category_id": list(CATEGORIES)[label]}
            sized = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append({**result, "bbox": sized, "score": model.score(image, row)})
    expected = direct(file, results, [ids[scene.name] for scene in scenes])
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert 10 < found.metrics["ap"] < 60
