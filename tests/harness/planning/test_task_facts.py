"""Facts of a task's splits are read once, and say when a split is too small for what is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from harness.planning.task_facts import UNKNOWN, TaskFacts
from tasks.base import DataError, SplitFacts


class Small:
    """Stands for a task: five images of a tenth of a folder, and every reading is counted."""

    name = "small"
    data_name = "small"
    read: ClassVar[list[str]] = []

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def facts(self, split: str) -> SplitFacts:
        self.read.append(split)
        if self.folder is None:
            raise DataError("no data for the task small")
        return SplitFacts(5, "digest", labelled=True, whole=False, description="5 of 50 images", one_in=10)


@pytest.fixture
def facts(tmp_path, monkeypatch) -> TaskFacts:
    monkeypatch.setattr(Small, "read", [])
    return TaskFacts(Small, tmp_path)  # type: ignore[arg-type]


def test_a_split_that_holds_enough_gives_its_facts_and_is_read_once(facts):
    assert facts.holding("tune", 5, "real_data") is facts.holding("tune", 1, "probe") is facts("tune")
    assert Small.read == ["tune"]


@pytest.mark.parametrize(("count", "images", "needed"), [(6, "6 images", 60), (128, "128 images", 1280)])
def test_a_split_that_holds_less_says_how_many_images_the_folder_needs(facts, count, images, needed):
    with pytest.raises(DataError) as refused:
        facts.holding("tune", count, "real_data")
    assert str(refused.value) == (
        f"real_data takes {images} of the tune split of small, which holds 5 (5 of 50 images): "
        f"give at least {needed} images"
    )


def test_one_image_is_said_as_one():
    class Empty(Small):
        def facts(self, split: str) -> SplitFacts:
            return SplitFacts(0, "digest", labelled=True, whole=False, description="nothing")

    with pytest.raises(DataError, match="probe takes 1 image of the report split of small, which holds 0"):
        TaskFacts(Empty, Path()).holding("report", 1, "probe")  # type: ignore[arg-type]


def test_data_that_an_outline_lacks_limits_nothing(monkeypatch):
    monkeypatch.setattr(Small, "read", [])
    outline = TaskFacts(Small, None, outline=True)  # type: ignore[arg-type]
    assert outline.holding("tune", 10**9, "real_data") is UNKNOWN
    assert outline.missing == "no data for the task small"
    with pytest.raises(DataError, match="no data"):
        TaskFacts(Small, None).holding("tune", 1, "real_data")  # type: ignore[arg-type]
