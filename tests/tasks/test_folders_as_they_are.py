"""Folders as people have them: flat, half sorted, nested, linked, shared between splits, oddly named."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tasks.base import DataError
from tasks.coco import Coco
from tasks.imagenet import ImageNet
from tasks.imagenet_labels import find_labels
from tasks.unlabelled_images import UnlabelledImages
from tests.tasks.test_coco_task import coco, edited  # noqa: F401 - a fixture
from tests.tasks.test_image_tasks import CLASSES, Always, imagenet, save_picture, teacher  # noqa: F401


def flattened(folder, table):
    """Moves every picture of val into val itself, under the official names, and writes a table of labels."""
    rows = {}
    for number, path in enumerate(sorted((folder / "val").glob("*/*")), 1):
        rows[f"ILSVRC2012_val_{number:08}"] = path.parent.name
        path.rename(folder / "val" / f"ILSVRC2012_val_{number:08}.JPEG")
    for wnid in CLASSES:
        (folder / "val" / wnid).rmdir()
    table(folder, rows)


def kaggle(folder, rows):
    lines = ["ImageId,PredictionString", *(f"{name},{wnid} 85 1 499 272" for name, wnid in rows.items())]
    (folder / "LOC_val_solution.csv").write_text("\n".join(lines))


def devkit(folder, rows):
    from scipy.io import savemat

    place = folder / "ILSVRC2012_devkit_t12" / "data"
    place.mkdir(parents=True)
    numbers = {wnid: number for number, wnid in enumerate(CLASSES, 1)}
    synsets = np.array(
        [(number, wnid) for wnid, number in numbers.items()], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")]
    )
    savemat(place / "meta.mat", {"synsets": synsets})
    truth = "\n".join(str(numbers[wnid]) for wnid in rows.values())
    (place / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)


@pytest.mark.parametrize("table", [kaggle, devkit])
def test_a_flat_val_is_labelled_from_a_table(imagenet, table):  # noqa: F811
    flattened(imagenet, table)
    task = ImageNet(imagenet)
    labels = [sample.label for split in ("tune", "report") for sample in task.samples(split)]
    assert {label: labels.count(label) for label in labels} == dict.fromkeys(CLASSES.values(), 12)
    assert ImageNet(imagenet / "val").facts("report").sample_count == 44


def test_a_devkit_without_the_meaning_of_its_numbers_is_explained(imagenet):  # noqa: F811
    flattened(imagenet, devkit)
    next(imagenet.rglob("meta.mat")).unlink()
    with pytest.raises(DataError, match=r"val is flat, and .*ground_truth.txt .* meta.mat .* is not there"):
        ImageNet(imagenet).facts("report")


def test_tables_of_other_things_are_no_labels(tmp_path):
    (tmp_path / "my_values.csv").write_text("a,b\n1,2\n")
    assert find_labels(tmp_path, tmp_path) == {}


def test_loose_pictures_beside_class_folders_are_counted_and_named(imagenet):  # noqa: F811
    save_picture(imagenet / "val" / "ILSVRC2012_val_00000001.JPEG", 0)
    facts = ImageNet(imagenet).facts("report")
    (note,) = facts.notes
    assert note.startswith("loose images beside the class folders left out")
    assert note.endswith(": 1 (ILSVRC2012_val_00000001.JPEG)")
    assert facts.sample_count == 44


def test_folders_inside_class_folders_and_names_after_the_id_are_read(imagenet):  # noqa: F811
    before = ImageNet(imagenet).facts("report").sample_count
    (imagenet / "val" / "n01440764").rename(imagenet / "val" / "n01440764_tench")
    inner = imagenet / "val" / "n15075141" / "images"
    inner.mkdir()
    for path in sorted((imagenet / "val" / "n15075141").glob("*.JPEG")):
        path.rename(inner / path.name)
    task = ImageNet(imagenet)
    assert task.facts("report").sample_count == before
    assert {sample.label for sample in task.samples("report")} == set(CLASSES.values())


@pytest.mark.parametrize("place", ["ILSVRC/Data/CLS-LOC/val", "validation", "ILSVRC2012_img_val"])
def test_other_names_of_val_are_understood(imagenet, place):  # noqa: F811
    before = ImageNet(imagenet).facts("report")
    (imagenet / place).parent.mkdir(parents=True, exist_ok=True)
    (imagenet / "val").rename(imagenet / place)
    assert ImageNet(imagenet).facts("report") == before


def test_links_to_nowhere_are_left_out_and_named(imagenet, teacher):  # noqa: F811
    (imagenet / "val" / "n01440764" / "lost.JPEG").symlink_to("/nowhere/x.JPEG")
    note = "images left out that cannot be opened: 1 (n01440764/lost.JPEG)"
    assert ImageNet(imagenet).facts("report").notes == (note,)
    assert ImageNet(imagenet).evaluate(Always(0), teacher, "report").notes == (note,)


@pytest.mark.parametrize("shared", ["link", "copy"])
def test_a_train_folder_that_is_val_is_refused_for_tuning_and_noted_otherwise(imagenet, shared):  # noqa: F811
    if shared == "link":
        (imagenet / "train").symlink_to("val")
    else:
        shutil.copytree(imagenet / "val", imagenet / "train")
    with pytest.raises(DataError, match=r"train and .*val hold the same images"):
        ImageNet(imagenet).facts("tune")
    (note,) = ImageNet(imagenet).facts("report").notes
    assert "hold the same images" in note


def test_a_picture_that_is_reported_on_leaves_the_tune_split_by_name(imagenet):  # noqa: F811
    save_picture(imagenet / "train" / "n01440764" / "own.JPEG", "own")
    twin = imagenet / "train" / "n01440764" / "twin.JPEG"
    shutil.copy(sorted((imagenet / "val" / "n01440764").iterdir())[0], twin)
    task = ImageNet(imagenet)
    assert [sample.name for sample in task.samples("tune")] == ["train/n01440764/own.JPEG"]
    assert task.facts("report").notes[0].endswith(": 1 (train/n01440764/twin.JPEG)")


def test_names_of_any_bytes_are_hashed_and_shown(tmp_path, teacher):  # noqa: F811
    for k in range(20):
        save_picture(tmp_path / os.fsdecode(b"caf\xe9%d.png" % k), k)
    found = UnlabelledImages(tmp_path).evaluate(Always(0), teacher, "report")
    assert len(found.sample_ids) == 18
    assert all(name.isascii() for name in found.sample_ids)
    assert UnlabelledImages(tmp_path).facts("tune").sample_count == 2


def test_wide_pictures_are_scaled_and_those_without_a_range_left_out(tmp_path, teacher):  # noqa: F811
    for k in range(8):
        Image.fromarray(np.full((20, 20), 9000 * k, dtype="uint16")).save(tmp_path / f"{k}.png")
    Image.fromarray(np.zeros((20, 20), dtype="float32")).save(tmp_path / "f.tif")
    found = UnlabelledImages(tmp_path).evaluate(Always(0), teacher, "report")
    assert found.notes[0] == "images left out whose mode states no range of values: 1 (f.tif F)"
    assert found.notes[1].startswith("images scaled from 16 bits to 8: 8 (0.png I;16")


@pytest.mark.parametrize("kind", [float, str])
def test_ids_that_stand_for_whole_numbers_change_nothing(coco, kind):  # noqa: F811
    before = Coco(coco).facts("report")

    def bent(content):
        for entry in content["annotations"]:
            entry.update(image_id=kind(entry["image_id"]), category_id=kind(entry["category_id"]))
        for entry in [*content["images"], *content["categories"]]:
            entry.update(id=kind(entry["id"]))

    edited(coco, bent)
    assert Coco(coco).facts("report") == before


def test_a_byte_order_mark_changes_nothing(coco):  # noqa: F811
    before = Coco(coco).facts("report")
    file = coco / "annotations" / "instances_val2017.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert Coco(coco).facts("report") == before


def test_equal_annotations_are_taken_once_counted_and_named(coco):  # noqa: F811
    before = Coco(coco).facts("report")
    edited(
        coco,
        lambda c: c["annotations"].extend([{**e, "id": 900 + k} for k, e in enumerate(c["annotations"])]),
    )
    after = Coco(coco).facts("report")
    assert after.digest == before.digest
    assert any(
        note.startswith("annotations taken once that are equal to another one") for note in after.notes
    )


def test_an_id_that_is_taken_leaves_its_second_bearer_out(coco):  # noqa: F811
    edited(coco, lambda c: c["annotations"].append({**c["annotations"][0], "bbox": [1, 1, 5, 5]}))
    assert "annotations left out whose id another one has: 1 (1)" in Coco(coco).facts("report").notes


@pytest.mark.parametrize("prefix", ["val2017/", "C:\\data\\coco\\", "/mnt/x/", "./"])
def test_a_path_before_the_file_name_changes_nothing(coco, prefix):  # noqa: F811
    before = Coco(coco).facts("report")
    edited(coco, lambda c: [entry.update(file_name=prefix + entry["file_name"]) for entry in c["images"]])
    after = Coco(coco).facts("report")  # notes name images as the file does
    assert dataclasses.replace(after, notes=before.notes) == before


def test_coco_parts_that_are_the_same_are_refused_for_tuning(coco):  # noqa: F811
    (coco / "train2017").symlink_to("val2017")
    places = [coco / "annotations" / f"instances_{part}.json" for part in ("val2017", "train2017")]
    places[1].write_text(json.dumps(json.loads(places[0].read_text())))
    with pytest.raises(DataError, match=r"train2017 and .*val2017 hold the same images"):
        Coco(coco).facts("tune")
