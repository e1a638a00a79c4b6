"""`harness doctor` decodes pictures of the given data and names those that do not decode."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from harness.cli import doctor
from harness.cli.main import app


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> Path:
    """Thirty pictures, of which one is cut short and one is text."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(30):
        Image.new("RGB", (32, 32), (8 * number, 0, 0)).save(folder / f"{number:02}.png")
    cut = folder / "07.png"
    cut.write_bytes(cut.read_bytes()[:60])
    (folder / "21.png").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "_weights", lambda _: [])
    return folder


def said(folder: Path, *more: str) -> str:
    done = CliRunner().invoke(app, ["doctor", "--data", f"images={folder}", *more])
    assert done.exit_code == 0, done.exception
    cells = (cell.strip() for line in done.stdout.splitlines() for cell in line.split("\u2502"))
    return " ".join(" ".join(cells).split())


def test_all_pictures_of_a_small_folder_are_decoded(pictures):
    text = said(pictures)
    assert "all 30 pictures decoded" in text
    assert "pictures that do not decode: 2 (07.png, 21.png)" in text


def test_of_many_pictures_a_sample_is_decoded_unless_all_are_asked_for(pictures, monkeypatch):
    monkeypatch.setattr(doctor, "_SAMPLE", 5)
    text = said(pictures)
    assert "5 of 30 pictures decoded, all with --all-images" in text
    assert text == said(pictures)
    assert "do not decode: 2 (07.png, 21.png)" in said(pictures, "--all-images")


def test_whole_pictures_are_not_named(pictures):
    for name in ("07.png", "21.png"):
        (pictures / name).unlink()
    text = said(pictures)
    assert "all 28 pictures decoded" in text
    assert "do not decode" not in text
