"""Finding pictures through links and past what cannot be opened, names that are no text, and wide values."""

import os

import numpy as np
import pytest
from PIL import Image

from backbones import DataConfig
from backbones.preprocessing.picture_files import pictures_under, printable
from backbones.preprocessing.transforms import is_readable, read_image

DATA = DataConfig((3, 16, 16), (0.5,) * 3, (0.5,) * 3, crop_pct=1.0)


def names_of(folder):
    return [path.relative_to(folder).as_posix() for path in pictures_under(folder).paths]


def test_linked_folders_are_searched_once_and_loops_end(tmp_path):
    folder, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    (folder / "z").mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "z" / "1.png").touch()
    (elsewhere / "2.png").touch()
    (folder / "a").symlink_to(folder / "z")
    (folder / "b").symlink_to(elsewhere)
    (folder / "up").symlink_to(tmp_path)
    (elsewhere / "self").symlink_to(elsewhere)
    assert names_of(folder) == ["b/2.png", "z/1.png"]


def test_what_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "a.png").symlink_to("/nowhere/a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "b.png")
    os.mkfifo(tmp_path / "c.png")
    (tmp_path / "d.png").touch()
    found = pictures_under(tmp_path)
    assert [path.name for path in found.paths] == ["d.png"]
    assert found.unopened == ("a.png", "b.png", "c.png")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9.png", r"caf\xe9.png"),
        ("café 1.png".encode(), "café 1.png"),
        (b"a\nb\x1b.png", r"a\nb\x1b.png"),
    ],
)
def test_a_name_is_shown_on_one_line_that_can_be_encoded(name, shown):
    assert printable(os.fsdecode(name)) == shown


@pytest.mark.parametrize(("suffix", "dtype"), [(".png", "uint16"), (".tif", "uint16"), (".tif", ">u2")])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix, dtype):
    levels = np.arange(256, dtype="uint16").reshape(16, 16)
    Image.fromarray((levels * 257).astype(dtype)).save(tmp_path / f"wide{suffix}")
    Image.fromarray(levels.astype("uint8")).save(tmp_path / "narrow.png")
    wide, mode = read_image(tmp_path / f"wide{suffix}", DATA)
    narrow, _ = read_image(tmp_path / "narrow.png", DATA)
    assert mode.startswith("I;16")
    assert (wide == narrow).all()


@pytest.mark.parametrize(("mode", "dtype"), [("F", "float32"), ("I", "int32")])
def test_values_without_a_range_are_not_read(tmp_path, mode, dtype):
    Image.fromarray(np.full((16, 16), 0.5, dtype=dtype)).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif", DATA) == (None, mode)
    assert not is_readable(tmp_path / "x.tif")
