"""The tables of the verbs in narrow and wide terminals: no number is cropped, no row unnamed."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from harness.analysis.analysing import Analysis
from harness.analysis.measuring import (
    KEPT_SHARES,
    PATCHES,
    WHOLE,
    Answers,
    Dependence,
    ImageFacts,
    Margin,
    StudentFacts,
    View,
)
from harness.analysis.report import render
from harness.cli import catalogue, doctor, listing
from harness.cli.plan import print_plan
from harness.cli.tuning_report import print_tuned
from harness.planning.request import Places, Request, Rows
from harness.planning.session import open_outline
from harness.tuning.space import Dimension, Space
from harness.tuning.tune import Tuned
from results.statistics import Spread
from results.tables import FittedTable

WIDTHS = pytest.mark.parametrize("width", [60, 80, 120])
LONG = "a_method_with_a_very_long_name_1281167_and_more_of_it"
FIGURE = re.compile(r"\d[\d.]*")


class Recording(Console):
    """A console that keeps the tables it prints beside their text."""

    def __init__(self, width: int) -> None:
        super().__init__(file=io.StringIO(), width=width, highlight=False, emoji=False)
        self.tables: list[FittedTable] = []

    def print(self, *objects, **settings):  # type: ignore[no-untyped-def]
        self.tables += [one for one in objects if isinstance(one, FittedTable)]
        super().print(*objects, **settings)


def check(console: Recording, text: str | None = None) -> None:
    """Every figure of every table is in the text, or its column is named as left out."""
    text = console.file.getvalue() if text is None else text
    assert console.tables
    assert "…" not in text
    table_lines = [line for line in text.splitlines() if "dfq-store" not in line]
    assert max(map(len, table_lines)) <= console.width
    said = " ".join(text.split())
    left_out = " ".join(re.findall(r"Left out at \d+ columns: (.*?)\. A wider", said))
    for table in console.tables:
        for cells, _ in table.rows:
            for column, cell in zip(table.columns, cells, strict=True):
                if column.leaves and column.name.rstrip(".") in left_out:
                    continue
                for figure in FIGURE.findall(cell):
                    assert figure in text, (column.name, cell)
            name = cells[0]
            assert name.split()[0].split("_")[0] in text


@WIDTHS
@pytest.mark.parametrize("kind", list(listing.Kind))
def test_lists(monkeypatch, kind, width):
    console = Recording(width)
    monkeypatch.setattr(listing, "output_console", lambda: console)
    listing._print_table(kind.value, listing._ROWS[kind](False))
    check(console)


@WIDTHS
def test_details_of_a_list_are_wrapped_between_words(monkeypatch, width):
    console = Recording(width)
    monkeypatch.setattr(listing, "output_console", lambda: console)
    rows = [{**row, "more": "[bold]literal[/bold] 1281167"} for row in catalogue.methods(True)[:4]]
    listing._print_details(rows)
    text = console.file.getvalue()
    assert "…" not in text
    assert "[bold]literal[/bold]" in text
    assert max(map(len, text.splitlines())) <= width
    for row in rows:
        for entry in row["settings"]:
            assert str(entry["field"]) in text


@WIDTHS
@pytest.mark.parametrize("every_stage", [False, True])
def test_plans(tmp_path, width, every_stage):
    session = open_outline(Request(Rows("digits_controlled_w3a3"), Places(store=str(tmp_path))))
    timings = {stage.timing_name("cpu"): 86_400.0 * 3 for stage in session.plan.stages.values()}
    session.store.create().add_timings(timings)
    console = Recording(width)
    print_plan(session, console, every_stage)
    check(console)
    assert "3.0d" in console.file.getvalue() or not every_stage


@WIDTHS
def test_the_doctor(monkeypatch, width):
    console = Recording(width)
    rows = [
        ("weights " + LONG, f"/a/folder/{LONG}/{LONG}.safetensors", ""),
        ("data imagenet", "50000 images to report on", "--data imagenet=DIR, or HARNESS_DATA_IMAGENET=DIR"),
    ]
    monkeypatch.setattr(doctor, "output_console", lambda: console)
    for name in ("_packages", "_devices", "_data", "_weights"):
        monkeypatch.setattr(doctor, name, lambda *_: rows)
    doctor.doctor(
        places_store="dfq-store",
        places_data=[],
        places_weights=[],
        places_config=None,
        doctoroptions_all_images=False,
    )
    check(console)


def analysis_of(names: list[str]) -> Analysis:
    point = "blocks.11.attention.projection.input"
    answers = Answers(98.75, 0.0004, 1.5)
    views = (WHOLE, *(View(share, patches) for share in KEPT_SHARES for patches in PATCHES))
    margins = tuple(
        Margin(share, over, -12.5, 3.25) for share in KEPT_SHARES for over in ("random", "bottom")
    )
    dependence = Dependence(dict.fromkeys(views, answers), margins)
    images = {
        name: ImageFacts(
            (0.123, 0.456, 1.0), ((0.25, 0.75),), dependence, 2.25, {point: (-1.5, 1234.5 * (place + 1))}
        )
        for place, name in enumerate(names)
    }
    facts = {name: StudentFacts((0.1234, 0.25), dependence) for name in names}
    settings = {
        "backbone": "digits_vit", "bits": "w3a3", "engine": "lsq_qat", "budget": "smoke", "seed": 0,
        "measured_images": 128,
    }  # fmt: skip
    return Analysis(settings, images, facts, facts)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_analyses(monkeypatch, width):
    console = Recording(width)
    text = render(analysis_of(["real_data", LONG, "psaq_vit"]), "table", console)
    check(console, text)
    assert "-12.5 ±3.2" in text or width < 80
    assert "<0.01" in text or width == 40


@WIDTHS
def test_what_a_search_found(width):
    declared = [
        (LONG, "learning_rate_of_the_generator", 0.0004),
        ("lsq_qat", "epochs", 1281167),
        (LONG, "kl", 12345.6),
    ]
    dimensions = tuple(Dimension(*one, low=0.0, high=1.0) for one in declared)
    space = Space(LONG, "lsq_qat", dimensions)
    best = {d.name: d.default for d in space.dimensions}
    facts = {"objective": "accuracy, seconds", "trials": 24}
    console = Recording(width)
    tuned = Tuned(
        space, "a-study", Path("a folder"), best, facts, (97.256, 0.004), (90.0, 12.0),
        shares=dict.fromkeys(best, Spread(0.0004, 0.12)), trials_before=12,
    )  # fmt: skip
    print_tuned(tuned, console)
    check(console)
    said = " ".join(console.file.getvalue().split())
    assert "best of 24 trials, 12 of them from before, accuracy 97.26, seconds <0.01" in said
    assert "<0.01" in said
