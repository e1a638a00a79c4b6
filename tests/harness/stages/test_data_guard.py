from __future__ import annotations

import os

import pytest

from harness.stages.data_guard import DataAccessRefused, data_allowed, no_data


def test_a_method_that_looks_for_a_data_set_gets_none(tmp_path):
    folder = tmp_path / "imagenet"
    folder.mkdir()
    (folder / "image.txt").write_text("pixels")
    elsewhere = tmp_path / "notes.txt"
    elsewhere.write_text("fine")
    with no_data([folder]):
        with pytest.raises(DataAccessRefused, match=r"image\.txt"):
            (folder / "image.txt").read_text()
        with pytest.raises(DataAccessRefused):
            os.listdir(folder)
        with pytest.raises(DataAccessRefused):
            os.scandir(os.path.relpath(folder))
        assert elsewhere.read_text() == "fine"
        with data_allowed():
            assert (folder / "image.txt").read_text() == "pixels"
        with pytest.raises(DataAccessRefused):
            (folder / "image.txt").read_text()
    assert (folder / "image.txt").read_text() == "pixels"


def test_a_link_to_the_data_is_refused_too(tmp_path):
    folder = tmp_path / "imagenet"
    folder.mkdir()
    (folder / "image.txt").write_text("pixels")
    (tmp_path / "link").symlink_to(folder)
    with no_data([folder]), pytest.raises(DataAccessRefused):
        (tmp_path / "link" / "image.txt").read_text()


def test_the_embedded_digits_are_protected():
    from sklearn.datasets import load_digits

    with no_data([]), pytest.raises(DataAccessRefused):
        load_digits()
    assert len(load_digits().target) == 1797
