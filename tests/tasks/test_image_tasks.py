"""ImageNet and unlabelled folders on generated pictures, whole and damaged."""

import random
import shutil

import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

from backbones import Backbone, BackboneSpec, DataConfig
from backbones.families.explicit import make_explicit
from tasks.base import DataError, EvaluationOptions
from tasks.imagenet import ImageNet
from tasks.unlabelled_images import UnlabelledImages

# Real WordNet ids with their class indices, in an order that is not that of the folders.
CLASSES = {"n03000684": 491, "n01440764": 0, "n15075141": 999, "n02102040": 217}


@pytest.fixture(scope="module")
def teacher():
    """A random 16-pixel ViT with ImageNet's 1,000 classes."""
    data = DataConfig((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), crop_pct=0.8)
    spec = BackboneSpec("toy", "vit", "", "", data, 1000, "imagenet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VisionTransformer(
            img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=1000
        )
        torch.nn.init.normal_(model.head.weight)
    return Backbone(spec, make_explicit(model).eval().requires_grad_(False), "x")


def save_picture(path, seed, mode="RGB"):
    """A 24 x 20 picture of a random gradient."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    corners = bytes(draw.randrange(256) for _ in range(12))
    Image.frombytes("RGB", (2, 2), corners).resize((24, 20)).convert(mode).save(path)
    return path


@pytest.fixture
def imagenet(tmp_path):
    """ImageNet's layout with 12 pictures in each of four classes, written in a scrambled order."""
    names = [(wnid, k) for wnid in CLASSES for k in range(12)]
    random.Random(1).shuffle(names)
    for wnid, k in names:
        save_picture(tmp_path / "val" / wnid / f"{wnid}_{k:02}.JPEG", f"{wnid}{k}")
    return tmp_path


@pytest.fixture
def pictures(tmp_path):
    """Unlabelled pictures in nested folders, among files that are none."""
    for k in range(40):
        save_picture(tmp_path / ("inner/most" if k % 3 else ".") / f"{k:02}.png", k)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    return tmp_path


class Always(torch.nn.Module):
    """Answers one class."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return torch.nn.functional.one_hot(torch.full((len(images),), self.answer), 1000).float()


@pytest.mark.parametrize(("wnid", "index"), CLASSES.items())
def test_the_class_index_comes_from_the_wordnet_id(imagenet, teacher, wnid, index):
    found = ImageNet(imagenet).evaluate(Always(index), teacher, "report")
    right = [name for name, hit in zip(found.sample_ids, found.outcomes["top1"], strict=True) if hit]
    assert right == [name for name in found.sample_ids if name.startswith(wnid)]
    assert right


def test_a_subset_keeps_the_labels_of_the_whole(imagenet, teacher):
    shutil.rmtree(imagenet / "val" / "n01440764")
    found = ImageNet(imagenet).evaluate(Always(999), teacher, "report")
    right = [name for name, hit in zip(found.sample_ids, found.outcomes["top1"], strict=True) if hit]
    assert right == [name for name in found.sample_ids if name.startswith("n15075141")]


def test_val_itself_may_be_given(imagenet):
    assert ImageNet(imagenet / "val").facts("report") == ImageNet(imagenet).facts("report")


def test_samples_are_in_order_of_their_names_whatever_the_threads_and_batches(imagenet, teacher):
    threads = torch.get_num_threads()
    runs = []
    try:
        for batch_size, count in ((5, 1), (32, 3)):
            torch.set_num_threads(count)
            runs.append(
                ImageNet(imagenet).evaluate(
                    teacher.model,
                    teacher,
                    "report",
                    EvaluationOptions(batch_size=batch_size, keep_outputs=True),
                )
            )
    finally:
        torch.set_num_threads(threads)
    assert runs[0].sample_ids == runs[1].sample_ids == tuple(sorted(runs[0].sample_ids))
    torch.testing.assert_close(runs[0].outputs, runs[1].outputs, atol=1e-4, rtol=1e-4)
    assert runs[0].outputs.std(dim=0).mean() > 0.01


def test_splits_are_disjoint_fixed_and_cover_val(imagenet, teacher):
    task = ImageNet(imagenet)
    found = {s: task.evaluate(teacher.model, teacher, s).sample_ids for s in ("tune", "report")}
    assert len(found["tune"]) == 4
    assert len(found["report"]) == 44
    assert not set(found["tune"]) & set(found["report"])
    again = ImageNet(imagenet).evaluate(teacher.model, teacher, "tune").sample_ids
    assert again == found["tune"]


@pytest.mark.parametrize(("count", "tune"), [(9, 0), (320, 32), (499, 49)])
def test_a_tenth_is_kept_for_tuning(tmp_path, count, tune):
    for k in range(count):
        (tmp_path / f"{k}.png").write_text(str(k))
    facts = {split: UnlabelledImages(tmp_path).facts(split).sample_count for split in ("tune", "report")}
    assert facts == {"tune": tune, "report": count - tune}


def test_the_tune_split_never_exceeds_a_thousand(tmp_path):
    for k in range(11_000):
        (tmp_path / f"{k}.png").touch()
    assert UnlabelledImages(tmp_path).facts("tune").sample_count == 1000


def test_added_files_hardly_move_the_tune_split(tmp_path):
    def tune():
        return {sample.name for sample in UnlabelledImages(tmp_path).samples("tune")}

    for k in range(400):
        (tmp_path / f"{k}.png").touch()
    before = tune()
    for k in range(400, 420):
        (tmp_path / f"{k}.png").touch()
    assert len(before & tune()) >= 37


def test_facts_follow_names_sizes_and_nothing_else(imagenet):
    before = ImageNet(imagenet).facts("report")
    assert before.labelled
    assert not before.whole
    assert before.description == "44 of 48 images of val"
    copy = imagenet.parent / "elsewhere"
    shutil.copytree(imagenet, copy)
    assert ImageNet(copy).facts("report") == before
    with ImageNet(copy).samples("report")[0].path.open("ab") as file:
        file.write(b"\0")
    assert ImageNet(copy).facts("report").digest != before.digest


def test_train_serves_tuning_and_leaves_val_whole(imagenet, teacher):
    for wnid in CLASSES:
        for k in range(3):
            save_picture(imagenet / "train" / wnid / f"{wnid}_{k}.JPEG", f"train{wnid}{k}")
    task = ImageNet(imagenet)
    assert task.facts("report").sample_count == 48
    assert task.facts("tune").sample_count == 12
    assert all(sample.name.startswith("train/n") for sample in task.samples("tune"))
    _, labels = task.calibration_images(teacher, 12, seed=0)
    assert sorted(labels.tolist()) == sorted(3 * list(CLASSES.values()))


def test_train_gives_every_class_its_share_of_a_thousand(imagenet):
    for wnid in CLASSES:
        (imagenet / "train" / wnid).mkdir(parents=True)
        for k in range(260):
            (imagenet / "train" / wnid / f"{k}.JPEG").touch()
    labels = [sample.label for sample in ImageNet(imagenet).samples("tune")]
    assert {label: labels.count(label) for label in labels} == dict.fromkeys(CLASSES.values(), 250)


def test_calibration_images_are_seeded_normalized_and_from_the_tune_split(imagenet, teacher):
    task = ImageNet(imagenet)
    images, labels = task.calibration_images(teacher, 4, seed=5)
    again, _ = ImageNet(imagenet).calibration_images(teacher, 4, seed=5)
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.float32
    assert torch.equal(images, again)
    assert sorted(labels.tolist()) == sorted(sample.label for sample in task.samples("tune"))
    orders = {tuple(task.calibration_images(teacher, 4, seed=s)[0].flatten().tolist()) for s in range(6)}
    assert len(orders) > 1
    low, high = teacher.pixel_range()
    assert (images >= low - 1e-6).all()
    assert (images <= high + 1e-6).all()


def test_more_calibration_images_than_there_are_is_an_error(imagenet, teacher):
    with pytest.raises(DataError, match="5 images are asked for, but the tune split holds only 4"):
        ImageNet(imagenet).calibration_images(teacher, 5, seed=0)


def test_broken_files_are_left_out_named_and_counted(imagenet, teacher):
    first, second, *_ = ImageNet(imagenet).samples("report")
    first.path.write_bytes(first.path.read_bytes()[:200])
    second.path.write_text("no picture")
    found = ImageNet(imagenet).evaluate(
        teacher.model, teacher, "report", EvaluationOptions(keep_outputs=True)
    )
    assert len(found.sample_ids) == len(found.outputs) == len(found.outcomes["top1"]) == 42
    assert not {first.name, second.name} & set(found.sample_ids)
    assert found.notes == (f"unreadable images left out: 2 ({first.name}, {second.name})",)
    again = ImageNet(imagenet).evaluate(
        teacher.model, teacher, "report", EvaluationOptions(reference=found.outputs)
    )
    assert again.metrics["agreement"] == 100


def test_many_broken_files_are_counted_and_some_named(imagenet, teacher):
    for sample in ImageNet(imagenet).samples("report")[:20]:
        sample.path.write_bytes(b"")
    # Whole batches are broken, too.
    found = ImageNet(imagenet).evaluate(teacher.model, teacher, "report", EvaluationOptions(batch_size=4))
    assert len(found.sample_ids) == 24
    (note,) = found.notes
    assert note.startswith("unreadable images left out: 20 (n01440764/")
    assert note.endswith(" and 15 more)")


def test_only_broken_files_are_an_error(imagenet, teacher):
    for sample in ImageNet(imagenet).samples("report"):
        sample.path.write_bytes(b"")
    with pytest.raises(DataError, match="none of 44 image files could be read"):
        ImageNet(imagenet).evaluate(teacher.model, teacher, "report")


def test_calibration_passes_over_broken_files(pictures, teacher):
    samples = UnlabelledImages(pictures).samples("tune")
    samples[1].path.write_bytes(b"")
    images, labels = UnlabelledImages(pictures).calibration_images(teacher, 3, seed=0)
    assert len(images) == 3
    assert labels.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", ".JPEG"), ("CMYK", ".JPEG"), ("RGBA", ".png"), ("P", ".png"), ("1", ".png")]
)
def test_other_colour_modes_are_converted_and_named(imagenet, teacher, mode, suffix):
    place = imagenet / "val" / "n01440764" / f"other{suffix}"
    save_picture(place, 3, mode)
    with Image.open(place) as image:
        image.convert("RGB").save(imagenet / "val" / "n01440764" / "rgb.png")
    found = ImageNet(imagenet).evaluate(
        teacher.model, teacher, "report", EvaluationOptions(keep_outputs=True)
    )
    name = f"n01440764/other{suffix}"
    assert found.notes == (f"images converted from another colour mode: 1 ({name} {mode})",)
    rows = [found.sample_ids.index(n) for n in (name, "n01440764/rgb.png")]
    assert torch.equal(found.outputs[rows[0]], found.outputs[rows[1]])


def no_val(folder):
    shutil.rmtree(folder / "val")
    (folder / "pictures").mkdir()


def unknown_class(folder):
    save_picture(folder / "val" / "n99999999" / "x.JPEG", 0)


def named_by_word(folder):
    save_picture(folder / "val" / "tench" / "x.JPEG", 0)


def empty_class(folder):
    shutil.rmtree(folder / "val" / "n01440764")
    (folder / "val" / "n01440764").mkdir()


def flat(folder):
    shutil.rmtree(folder / "val")
    save_picture(folder / "val" / "ILSVRC2012_val_00000001.JPEG", 0)


def empty_train(folder):
    (folder / "train").mkdir()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            no_val,
            r"val nor .* holds folders named by WordNet id.* holds 1 folders \(pictures\)\): "
            "give --data imagenet=DIR",
        ),
        (
            flat,
            r"val is flat, 1 loose images \(ILSVRC2012_val_00000001.JPEG\).*sort them into .*/val/<wnid>/",
        ),
        (unknown_class, "no class of ImageNet-1k: n99999999: name every folder by its WordNet id"),
        (named_by_word, "no class of ImageNet-1k: tench"),
        (empty_class, "val has no images in n01440764: fill the folder or remove it"),
        (empty_train, "train has no images in any class folder: fill the folder or remove it"),
    ],
)
def test_a_wrong_folder_gives_one_sentence(imagenet, damage, sentence):
    damage(imagenet)
    with pytest.raises(DataError, match=sentence) as caught:
        ImageNet(imagenet).facts("tune")
    assert str(imagenet) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("task", "name"), [(ImageNet, "imagenet"), (UnlabelledImages, "images")])
def test_no_folder_or_a_missing_one_says_how_to_give_it(tmp_path, task, name):
    with pytest.raises(DataError, match=f"no data for the task {name}: give --data {name}=DIR"):
        task().facts("report")
    with pytest.raises(DataError, match=f"no folder .*absent: give --data {name}=DIR"):
        task(tmp_path / "absent").facts("report")


def test_hidden_folders_and_other_files_are_passed_over(imagenet):
    before = ImageNet(imagenet).facts("report")
    save_picture(imagenet / "val" / ".thumbnails" / "x.JPEG", 0)
    (imagenet / "val" / "n01440764" / "list.txt").write_text("")
    assert ImageNet(imagenet).facts("report") == before


def test_a_backbone_with_other_classes_is_refused(imagenet):
    spec = BackboneSpec("ten", "vit", "", "", DataConfig((3, 16, 16), (0.5,) * 3, (0.5,) * 3), 10, "digits")
    with pytest.raises(DataError, match="ten has 10 classes, the task imagenet 1000"):
        ImageNet(imagenet).evaluate(Always(0), Backbone(spec, Always(0), "x"), "report")


def test_unlabelled_pictures_are_found_recursively_and_rank_by_agreement(pictures, teacher):
    task = UnlabelledImages(pictures)
    facts = task.facts("report")
    assert (facts.sample_count, facts.labelled, facts.whole) == (36, False, False)
    found = task.evaluate(Always(7), teacher, "report")
    assert set(found.metrics) == {"agreement", "kl"}
    assert set(found.outcomes) == {"agreement", "kl"}
    assert task.primary_metric == "agreement"
    both = {sample.name for split in ("tune", "report") for sample in task.samples(split)}
    assert both == {f"inner/most/{k:02}.png" if k % 3 else f"{k:02}.png" for k in range(40)}


def test_a_folder_without_pictures_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match="holds no image files"):
        UnlabelledImages(tmp_path).facts("report")


def test_too_few_pictures_to_tune_are_an_error_only_when_asked_for(tmp_path, teacher):
    for k in range(3):
        save_picture(tmp_path / f"{k}.png", k)
    assert len(UnlabelledImages(tmp_path).evaluate(teacher.model, teacher, "report").sample_ids) == 3
    with pytest.raises(DataError, match=r"the tune split of .* is empty"):
        UnlabelledImages(tmp_path).evaluate(teacher.model, teacher, "tune")
    with pytest.raises(DataError, match="holds only 0"):
        UnlabelledImages(tmp_path).calibration_images(teacher, 1, seed=0)
