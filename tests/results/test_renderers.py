"""Every format of the leaderboard: golden texts, escaping, and what must not be missing."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from results.leaderboard import columns, leaderboard
from results.published import PublishedNames
from results.renderers import FORMATS, render
from tests.results.fakes import detection, failed, record

NAMES = PublishedNames(
    methods={("psaq_vit", "psaq_ptq"): "PSAQ-ViT", ("maskaq", "lsq_qat"): "MaskAQ"},
    backbones={"deit_tiny": "DeiT-T"},
)
HOSTILE = "[red]lost[/red] a|b <b>x</b> __init__ 50% of $1 & {y} #2 ~^\\"


@pytest.fixture(scope="module")
def board():
    """Three methods, their references and a failure at one bit-width."""
    records = [
        record("fp32", cost={}),
        record("real_data"),
        record("psaq_vit", notes=("a note",)),
        record("gaussian_noise", "1111000000", seed=0, outcomes={}),
        record("gaussian_noise", "1111100000", seed=1, outcomes={}),
        record("maskaq", engine="lsq_qat", protocol={"softmax": "quantized"}),
        failed("mimiq", reason=HOSTILE),
    ]
    return leaderboard(records, published=NAMES)


def table(board, width: int = 120) -> str:
    return render(board, "table", console=Console(width=width, force_terminal=False))


def test_markdown_is_as_recorded(board):
    assert render(board, "md") == (Path(__file__).parent / "leaderboard.md").read_text(encoding="utf-8")


def test_csv_holds_every_column(board):
    rows = list(csv.DictReader(io.StringIO(render(board, "csv"))))
    assert list(rows[0]) == list(columns())
    assert [row["method"] for row in rows] == [
        "fp32",
        "real_data",
        "maskaq",
        "gaussian_noise",
        "psaq_vit",
        "mimiq",
    ]
    assert [row["rank"] for row in rows] == ["", "", "1", "2", "3", ""]
    assert rows[5]["reason"] == HOSTILE
    assert rows[0]["published_others"].startswith("72.21 (PSAQ-ViT README (zkkli/PSAQ-ViT))")


def test_a_csv_line():
    assert render(leaderboard([record("fp32", cost={})]), "csv").splitlines()[1] == (
        ",fp32,,none,none,deit_tiny,fp32,imagenet,published,fast,top1,100.0,,72.24672001371107,"
        "99.99999999999999,1,1,10,,,,,,,50.0,0.5,,,,,,,,,,,,,,,,,,,,,True,none,ok,,,"
    )


def test_json_is_a_list_of_rows_with_null_for_what_is_missing(board):
    rows = json.loads(render(board, "json"), parse_constant=pytest.fail)
    fp32, _, best, _, third, mimiq = rows
    assert list(fp32) == list(columns())
    assert (fp32["rank"], fp32["std"], fp32["drop"], fp32["reference"]) == (None, None, None, True)
    assert (best["rank"], best["mean"], best["seeds"], best["notes"]) == (1, 70.0, 1, [])
    assert third["notes"] == ["a note"]
    assert third["published_others"] == []
    assert fp32["published_others"][0]["source"].startswith("PSAQ-ViT README")
    assert (mimiq["mean"], mimiq["status"], mimiq["reason"]) == (None, "failed", HOSTILE)


def test_the_terminal_table_fits_and_loses_nothing(board):
    for width in (100, 120):
        text = table(board, width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        for cell in ("45.00 ± 7.07", "failed [1]", "53.10 [a]", "0.125", "60s+5s", "lsq_qat", "0a1b"):
            assert cell in text


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_table_keeps_names_and_whole_numbers_and_says_what_is_left_out(board, width):
    text = table(board, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for cell in ("psaq_vit", "gaussian_noise", "maskaq", "mimiq", "deit_tiny", "45.00 ± 7.07", "failed [1]"):
        assert cell in text
    assert re.search(rf"Left out at {width} columns: Published.*, Prot\.", " ".join(text.split()))
    assert "Left out" not in table(board, 120)


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_table_of_detectors_names_every_row(width):
    values = [detection("fp32", [0.75, 0.5], backbone="maskrcnn_swin_tiny", bits="fp32")]
    values += [detection(name, [0.5, 0.25], backbone="maskrcnn_swin_tiny") for name in ("mimiq", "maskaq")]
    text = table(leaderboard(values), width)
    assert "…" not in text
    for cell in ("fp32", "mimiq", "maskaq", "AP"):
        assert cell in text


@pytest.mark.parametrize(("seconds", "shown"), [(0.01, "<0.1s"), (0.4, "0.4s"), (0.97, "1s"), (45.0, "45s")])
def test_a_cost_under_a_second_is_not_nothing(seconds, shown):
    cost = {"synthesis_seconds": seconds, "quantization_seconds": 5.0}
    assert f"{shown}+5s" in table(leaderboard([record("a", cost=cost)]))


def test_costs_of_different_devices_stand_apart_and_a_note_says_so():
    cost = {"synthesis_seconds": 60.0, "quantization_seconds": 5.0}
    devices = {"synthesis_seconds": "cpu (x86_64)", "quantization_seconds": "NVIDIA H100"}
    alike = dict.fromkeys(cost, "NVIDIA H100")
    text = " ".join(table(leaderboard([record("a", cost=cost, cost_devices=devices)])).split())
    assert "60s, 5s" in text
    assert "several devices (NVIDIA H100; cpu (x86_64))" in text
    text = table(leaderboard([record("a", cost=cost, cost_devices=alike)]))
    assert "60s+5s" in text
    assert "several devices" not in text


def test_the_terminal_table_shows_reasons_literally(board):
    assert "[1] failed: [red]lost[/red] a|b <b>x</b> __init__" in table(board)


def test_a_terminal_gets_styles(board):
    styled = render(board, "table", console=Console(width=120, force_terminal=True, color_system="standard"))
    assert "\x1b[" in styled
    assert "\x1b[" not in table(board)


def test_footnotes_explain_what_stands_beside_what(board):
    text = " ".join(table(board).split())
    for sentence in (
        "n = 1 is a single run",
        "Budgets fast and smoke do less work",
        "Protocols differ between rows ranked together",
        "not measured here",
        "[a] MaskAQ paper Table 1",
        "(exact McNemar), Holm-corrected",
        "psaq_vit + psaq_ptq deit_tiny: a note",
    ):
        assert sentence in text


def test_footnotes_say_nothing_about_what_is_not_there():
    text = table(leaderboard([record("a", seed=s, budget="paper") for s in (0, 1)]))
    for word in ("Budgets", "ref:", "n = 1", "Protocols", "Published:", "Controlled", "Holm"):
        assert word not in text


def test_the_controlled_track_and_class_names_are_explained():
    text = table(leaderboard([record("genq", track="controlled", data_use="class names")]))
    assert "ranks hold within one engine and one protocol" in text
    assert "Sees the names of the classes: genq." in text


def test_detectors_are_shown_with_their_average_precisions():
    board = leaderboard(
        [
            detection("fp32", [0.75, 0.75], bits="fp32"),
            detection("mimiq", [0.5, 0.5]),
            detection("b", [0.5, 0.25]),
        ]
        + [failed("maskaq", backbone="maskrcnn_swin_tiny", task="coco", seed=s) for s in (0, 1)]
    )
    text = render(board, "md")
    assert "| Method | AP | AP50 | AP75 | n | Drop | Agree |" in text
    assert "| **mimiq + repq_ptq** | **50.00** | 70.0 | 51.2 | 1 | 25.00 | 90.00 |" in text
    assert "failed \\[1\\] | – | – |" in text
    assert "F1 of the detections scored 0.5 or more against full precision's" in text
    assert "image by image (bootstrap over images and seeds, AP of each image alone)" in text
    assert "top-1" not in text.lower()
    assert "ap_small" in render(board, "csv").splitlines()[0]


def test_a_wide_detection_table_keeps_its_last_column():
    records = [detection("fp32", [0.75, 0.75], bits="fp32")]
    records += [detection("gaussian_noise", [0.5, 0.25 * seed], seed=seed) for seed in (0, 1, 2)]
    text = table(leaderboard(records))
    header = next(line for line in text.splitlines() if "Backbone" in line)
    assert header.split()[-2:] == ["p", "Prot."]
    assert "37.50 ± 12.50" in text
    assert max(map(len, text.splitlines())) <= 120


def test_budgets_stand_in_tables_of_their_own():
    text = render(leaderboard([record(), record(budget="paper")]), "md")
    assert text.count("### ") == 2


def test_partial_rows_show_how_many_seeds(board):
    text = table(leaderboard([record(seed=0), failed("psaq_vit", seed=1)]))
    assert "1/2 [1]" in text
    assert "[1] partial: 1 of 2 seeds: the loss is not finite" in text


def test_markdown_escapes_pipes_and_markup(board):
    text = render(board, "md")
    assert r"\[red\]lost\[/red\] a\|b \<b>x\</b> \_\_init\_\_ 50% of $1" in text
    assert all(line.count(" | ") == 11 for line in text.splitlines() if line.startswith("| "))


def test_latex_escapes_specials(board):
    text = render(board, "latex")
    assert r"50\% of \$1 \& \{y\} \#2 \textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    assert r"45.00 $\pm$ 7.07" in text
    assert r"\textbf{maskaq + lsq\_qat}" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {11}
    assert text.count("{") == text.count("}")


class Page(HTMLParser):
    """Counts rows and collects text and references to other files."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_html_is_one_file_with_everything_escaped(board):
    text = render(board, "html")
    page = Page()
    page.feed(text)
    assert page.tags.count("tr") == 7
    assert page.tags.count("b") == 0
    assert HOSTILE in page.text
    assert page.outside == []
    assert "@import" not in text
    assert "url(" not in text


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_leaderboard_renders(format: str):
    assert render(leaderboard([]), format)


def test_only_a_failure_renders_in_every_format():
    for format in FORMATS:
        assert "mimiq" in render(leaderboard([failed("mimiq")]), format).replace("\\_", "_")


def test_an_unknown_format_names_the_known_ones(board):
    with pytest.raises(ValueError, match="unknown format 'pdf': one of table, md, csv, json, latex, html"):
        render(board, "pdf")


def test_the_oracle_is_a_marked_column_only_where_it_was_measured(board):
    assert "Oracle" not in table(board)
    measured = record("maskaq", metrics={"top1": 30.0, "oracle_top1": 31.25})
    text = table(leaderboard([measured]))
    assert "Oracle" in text
    assert "31.25" in text
    assert "never ranked" in text
