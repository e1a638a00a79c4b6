import random
import re

import pytest
import torch
from PIL import Image

from backbones import SPECS, find_weights, sha256_of_file
from backbones.preprocessing.pixels import normalized
from backbones.preprocessing.transforms import pixel_mode, resized_and_cropped
from harness.errors import UsageError
from harness.planning.expansion import build_plan
from harness.stages.base import RunContext
from harness.suites.changes import with_assignments
from harness.suites.draft import Draft
from harness.suites.suite import Suite
from methods import configure
from methods.base import SynthesisTask
from methods.bits import Bits
from methods.image_folder import ImageFolder, ImageFolderConfig
from methods.testing.models import tiny

SUITE = Suite(
    name="test",
    task="digits",
    backbones=("digits_vit",),
    bits=(Bits(4, 4), Bits(8, 8)),
    methods=("image_folder",),
    engines=("psaq_ptq",),
    budget="smoke",
)


def save_picture(path, seed: int, mode: str = "RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    corners = bytes(draw.randrange(256) for _ in range(12))
    Image.frombytes("RGB", (2, 2), corners).resize((30, 20)).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path):
    """Six pictures in two folders, one in another colour mode, among a file that is none."""
    for k in range(6):
        save_picture(tmp_path / ("inner" if k % 2 else ".") / f"{k}.png", k, "L" if k == 4 else "RGB")
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def of(folder, **settings) -> ImageFolder:
    return ImageFolder(configure(ImageFolderConfig, "smoke", {"folder": str(folder), **settings}))


def synthesis_keys(folder, *assignments: str) -> set[str]:
    suite = with_assignments(Draft(SUITE), [f"image_folder.folder={folder}", *assignments]).suite
    weights = {"digits_vit": sha256_of_file(find_weights(SPECS["digits_vit"]))}
    plan = build_plan(suite, RunContext(store=folder), weights)
    return {trial.synthesis for trial in plan.trials if trial.method == "image_folder"}


def test_pictures_are_what_the_evaluation_transform_gives(folder):
    teacher = tiny("digits_vit")
    made = of(folder).synthesize(SynthesisTask(teacher, generator=torch.Generator()))
    names = ["0.png", "2.png", "4.png", "inner/1.png"]  # the first four by name
    expected = [
        normalized(
            resized_and_cropped(Image.open(folder / name).convert(pixel_mode(teacher.data)), teacher.data),
            teacher.data,
        )
        for name in names
    ]
    assert torch.equal(made.images, torch.stack(expected))
    assert made.labels.tolist() == [-1] * 4
    low, high = teacher.pixel_range()
    assert ((made.images >= low) & (made.images <= high)).all()


def test_the_seed_and_global_random_state_play_no_part(folder):
    before = torch.get_rng_state()
    first, other = (
        of(folder)
        .synthesize(SynthesisTask(tiny("digits_vit"), generator=torch.Generator().manual_seed(seed)))
        .images
        for seed in (1, 2)
    )
    assert torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_bit_widths_share_the_pictures_and_content_decides_the_key(folder):
    (before,) = synthesis_keys(folder)
    assert synthesis_keys(folder) == {before}
    (folder / "inner" / "5.png").unlink()  # not among the first four
    assert synthesis_keys(folder) == {before}
    save_picture(folder / "2.png", 99)
    (changed,) = synthesis_keys(folder)
    assert changed != before
    assert synthesis_keys(folder, "image_folder.images=3") != {changed}


def test_a_renamed_picture_changes_the_key(folder):
    (before,) = synthesis_keys(folder)
    (folder / "2.png").rename(folder / "3.png")
    assert synthesis_keys(folder) != {before}


def test_other_methods_read_nothing():
    from methods import get_method, method_names

    for name in method_names():
        synthesizer = get_method(name).synthesizer
        if synthesizer not in (None, ImageFolder):
            assert synthesizer(configure(synthesizer.Config, "smoke", {})).inputs_digest() is None


def test_faults_are_one_sentence_before_any_work(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = {
        "": "no folder was given: set image_folder.folder=DIR",
        str(tmp_path / "nowhere"): f"there is no folder {tmp_path / 'nowhere'}",
        str(folder / "notes.txt"): "there is no folder",
        str(empty): f"{empty} holds no pictures",
        str(folder / "inner"): "holds 3 of 4 pictures: set image_folder.images=3",
    }
    for given, sentence in cases.items():
        with pytest.raises(UsageError, match="^image_folder: .*" + re.escape(sentence)) as caught:
            synthesis_keys(given)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_a_broken_picture_is_named_before_any_work(folder, damage):
    picture = folder / "2.png"
    picture.write_bytes(picture.read_bytes()[:-30] if damage == "truncated" else b"hello")
    with pytest.raises(UsageError, match=r"2\.png in .* cannot be read as a picture: repair or remove it"):
        synthesis_keys(folder)
    with pytest.raises(ValueError, match=r"2\.png in .* cannot be read as a picture"):
        of(folder).synthesize(SynthesisTask(tiny("digits_vit"), generator=torch.Generator()))


def test_a_broken_picture_that_is_not_used_does_not_matter(folder):
    (folder / "inner" / "5.png").write_bytes(b"hello")
    assert len(synthesis_keys(folder)) == 1
