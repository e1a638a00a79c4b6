from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness.errors import UsageError
from harness.tuning.space import declared_space
from methods.settings import setting


@dataclass(frozen=True)
class Painter:
    contrast: float = setting(1.0, "Contrast.", low=0.01, high=100.0, log=True)
    strokes: int = setting(3, "Strokes.", low=1, high=5)
    brush: str = setting("flat", "Brush.", choices=("flat", "round"))
    images: int = setting(32, "Images.", low=1, high=1024, tunable=False)
    iterations: int = setting(100, "Steps.", low=1, high=1000, fast=10)
    mood: str = setting("calm", "Has no range.")
    colours: tuple[int, ...] = setting((1, 2), "Several.")


@dataclass(frozen=True)
class Frame:
    rate: float = setting(0.5, "Rate.", low=0.0, high=1.0)


def space(tmp_path=None, text: str = ""):
    file = None
    if tmp_path is not None:
        path = tmp_path / "space.yaml"
        path.write_text(text)
        file = str(path)
    return declared_space("painter", "frame", Painter(), Frame(), file)


def refused(tmp_path, text: str) -> str:
    with pytest.raises(UsageError) as error:
        space(tmp_path, text)
    return str(error.value)


def test_tunable_fields_are_searched_but_for_those_that_a_budget_sets():
    found = space()
    assert [d.name for d in found.dimensions] == [
        "painter.contrast",
        "painter.strokes",
        "painter.brush",
        "frame.rate",
    ]
    assert found.defaults == {
        "painter.contrast": 1.0,
        "painter.strokes": 3,
        "painter.brush": "flat",
        "frame.rate": 0.5,
    }


def test_the_engines_settings_are_nested_under_its_name():
    values = {"painter.contrast": 2.0, "frame.rate": 0.1, "painter.brush": "round"}
    assert space().settings(values) == {"contrast": 2.0, "brush": "round", "frame": {"rate": 0.1}}


def test_a_file_narrows_widens_and_leaves_out(tmp_path):
    found = space(
        tmp_path,
        "painter:\n  contrast: {low: 0.5, high: 2.0}\n  strokes: false\n  brush: {choices: [round]}\n"
        "  images: {low: 8, high: 16}\n  iterations: true\nframe:\n  rate: false\n",
    )
    by_name = {d.name: d for d in found.dimensions}
    assert list(by_name) == ["painter.contrast", "painter.brush", "painter.images", "painter.iterations"]
    contrast = by_name["painter.contrast"]
    assert (contrast.low, contrast.high, contrast.log) == (0.5, 2.0, True)
    assert by_name["painter.brush"].choices == ("round",)
    assert by_name["painter.images"].integer
    assert (by_name["painter.iterations"].low, by_name["painter.iterations"].high) == (1, 1000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("painter: {contrasts: {low: 1, high: 2}}", "unknown field 'contrasts': did you mean contrast"),
        ("paintr: {contrast: false}", "unknown method or engine 'paintr': this search is about painter and"),
        ("painter: {contrast: {low: 2, high: 1}}", "low 2 is above high 1"),
        ("painter: {contrast: {low: 0.001}}", "contrast=0.001 is below 0.01"),
        ("painter: {strokes: {high: 9}}", "strokes=9 is above 5"),
        ("painter: {brush: {choices: [flat, square]}}", "brush='square' is not one of flat, round"),
        ("painter: {contrast: {min: 1}}", "unknown key 'min'"),
        ("painter: {contrast: 3}", "write {low: A, high: B}"),
        ("painter: {brush: {choices: []}}", "at least one value"),
        ("painter: {mood: true}", "has no range of its own"),
        ("frame: {rate: {log: true}}", "a logarithmic range starts above 0"),
        ("painter: {contrast: {low: [1]}}", "contrast=[1] is not of type float"),
        ("painter: {contrast: {log: 5}}", "log is true or false"),
        ("painter: {brush: {low: flat, high: round}}", "has no range of its own"),
        ("painter: {brush: {choices: !!binary MTI=}}", "choices is a list with at least one value"),
        ("painter: {brush: {choices: null, low: flat}}", "choices is a list with at least one value"),
        ("painter: {strokes: {choices: [[1]]}}", "strokes=[1] is not of type int"),
        ("painter: {colours: {choices: [[1, 2]]}}", "write several numbers as one text, such as 10+20"),
        ("5: {contrast: true}", "unknown method or engine '5'"),
        ("painter: {5: true}", "unknown field '5'"),
        ('painter: {contrast: {"\\e[1m": 1}}', "unknown key '\\x1b[1m'"),
        ("- painter", "maps a method or an engine to its fields"),
        ("painter: {contrast: false, strokes: false, brush: false}\nframe: {rate: false}", "leaves nothing"),
    ],
)
def test_faults_of_a_file_are_named(tmp_path, text, said):
    assert said in refused(tmp_path, text)


def test_numbers_written_as_text_are_numbers(tmp_path):
    """YAML reads 1e-1 as text, for want of a point."""
    found = space(tmp_path, "painter: {contrast: {low: 1e-1, high: 9e0}, strokes: {choices: ['2', 2, 3.0]}}")
    by_field = {dimension.field: dimension for dimension in found.dimensions}
    assert (by_field["contrast"].low, by_field["contrast"].high) == (0.1, 9.0)
    assert by_field["strokes"].choices == (2, 3)


def test_all_faults_come_together(tmp_path):
    text = refused(tmp_path, "painter: {contrasts: true, strokes: {high: 9}}\nframes: {}\n")
    assert all(said in text for said in ("'contrasts'", "above 5", "'frames'"))


def test_a_missing_file_is_named():
    with pytest.raises(UsageError, match="no such file"):
        declared_space("painter", "frame", Painter(), Frame(), "nowhere.yaml")


def test_a_grid_holds_both_ends_and_every_choice(tmp_path):
    found = space(tmp_path, "painter: {strokes: false}\nframe: {rate: false}\n")
    points = found.grid(3, 100)
    assert len(points) == 6
    assert sorted({p["painter.contrast"] for p in points}) == pytest.approx([0.01, 1.0, 100.0])
    assert {p["painter.brush"] for p in points} == {"flat", "round"}


def test_a_grid_of_whole_numbers_has_no_value_twice(tmp_path):
    found = space(
        tmp_path, "painter: {contrast: false, brush: false, strokes: {low: 1, high: 2}}\nframe: {rate: false}"
    )
    assert [p["painter.strokes"] for p in found.grid(5, 100)] == [1, 2]


def test_a_grid_that_is_too_large_is_refused():
    with pytest.raises(UsageError, match=r"4 settings at 10 points are 1,000 combinations"):
        space().grid(10, 999)
