"""Grids of images are PNGs of the right size and colour, written whole or not at all."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from backbones import DataConfig
from harness.reporting.image_grids import save_grid, save_rows

GREY = DataConfig(input_size=(1, 4, 4), mean=(0.5,), std=(0.25,))


def uniform(*pixels: float) -> torch.Tensor:
    """Normalized grey images, one for each pixel value in [0, 1]."""
    values = (torch.tensor(pixels) - 0.5) / 0.25
    return values.view(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def test_a_grid_is_filled_row_by_row_and_tiny_images_are_enlarged(tmp_path):
    save_grid(uniform(0.0, 0.5, 1.0), GREY, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as sheet:
        assert sheet.size == (2 * 96 + 4, 2 * 96 + 4)
        assert [sheet.getpixel(at) for at in ((10, 10), (110, 10), (10, 110))] == [
            (0, 0, 0),
            (128, 128, 128),
            (255, 255, 255),
        ]


def test_values_beyond_the_pixel_range_are_cut_off(tmp_path):
    save_grid(uniform(-3.0, 7.0), GREY, tmp_path / "grid.png", columns=2)
    with Image.open(tmp_path / "grid.png") as sheet:
        assert sheet.getpixel((10, 10)) == (0, 0, 0)
        assert sheet.getpixel((110, 10)) == (255, 255, 255)


def test_captions_take_a_line_above_the_columns(tmp_path):
    red = Image.new("RGB", (40, 20), "red")
    save_rows([[red, red]], tmp_path / "rows.png", ("one", "two"))
    with Image.open(tmp_path / "rows.png") as sheet:
        assert sheet.size == (40 + 4 + 40, 16 + 20)
        assert sheet.getpixel((20, 15)) == (255, 255, 255)
        assert sheet.getpixel((20, 16)) == (255, 0, 0)


def test_a_sheet_that_cannot_be_put_in_place_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        save_rows([[Image.new("RGB", (4, 4))]], tmp_path / "rows.png")
    assert list(tmp_path.iterdir()) == []
