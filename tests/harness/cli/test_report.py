"""`harness report` and `harness compare`: files, pictures, refusals, and what the two say of a store."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import UsageError
from tests.registry_guard import registry_as_it_was

SUITE = """\
description: small
task: digits
backbones: [digits_vit]
bits: [w4a4, w8a8]
methods: [gaussian_noise]
engines: [psaq_ptq]
track: controlled
budget: smoke
seeds: [0, 1]
"""


def invoke(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the suite `small` and its finished run."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.yaml").write_text(SUITE)
    with registry_as_it_was():
        invoke("run", *places(folder), "--scheduler", "inline", "--device", "cpu")
    return folder


def places(folder: Path) -> list[str]:
    return ["--suite", str(folder / "small.yaml"), "--store", str(folder / "store")]


def report(folder: Path, site: Path, *more: str) -> str:
    return invoke("report", *places(folder), "--output", str(site), *more)


def data_of(site: Path) -> dict:
    page = (site / "index.html").read_text()
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_a_report_is_a_page_and_its_table_in_other_formats(folder, tmp_path):
    pandas = pytest.importorskip("pandas")
    said = report(folder, tmp_path / "site")
    assert "index.html: 5 rows" in said
    names = {path.name for path in (tmp_path / "site").iterdir()}
    assert names == {"index.html", "report.json", "table.md", "table.csv", "table.tex", "table.parquet"}
    with (tmp_path / "site" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    frame = pandas.read_parquet(tmp_path / "site" / "table.parquet")
    assert [row["method"] for row in rows] == list(frame["method"])
    assert [float(row["mean"]) for row in rows] == list(frame["mean"])
    assert rows[-1]["tied_rank"] == "1"
    assert frame["tied_rank"].iloc[-1] == 1
    assert r"\toprule" in (tmp_path / "site" / "table.tex").read_text()


def test_the_page_shows_pictures_curves_and_margins_of_the_store(folder, tmp_path):
    report(folder, tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert page.count('<img alt="') >= 8
    assert "Accuracy over bits" in page
    (group,) = data_of(tmp_path)["flips"]
    assert group["margins"]
    assert "Drop by class" in page


def test_a_row_carries_the_command_that_repeats_it(folder, tmp_path):
    report(folder, tmp_path)
    row = next(row for row in data_of(tmp_path)["rows"] if "--bits w4a4" in row["d"]["command"])
    command = row["d"]["command"]
    assert command.startswith("harness run --suite ")
    assert "--seeds 0,1" in command
    assert "--budget smoke" in command
    assert "--store" not in command  # where things lie is another matter on another machine
    again = json.loads(invoke("leaderboard", *command.split()[2:], *places(folder)[2:], "-f", "json"))
    assert {row["bits"] for row in again} == {"fp32", "w4a4"}
    assert all(row["status"] == "ok" for row in again)


def test_a_report_is_made_anew_in_its_own_folder_alone(folder, tmp_path):
    site = tmp_path / "site"
    report(folder, site)
    first = (site / "index.html").read_bytes()
    report(folder, site)
    assert (site / "index.html").read_bytes() == first
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds files that are no report; give a new or an empty folder"):
        report(folder, other)
    with pytest.raises(UsageError, match="is a file"):
        report(folder, other / "thesis.txt")
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_two_suites_make_one_page(folder, tmp_path):
    (tmp_path / "wide.yaml").write_text(SUITE.replace("w4a4, w8a8", "w8a8, w6a8"))
    shutil.copytree(folder / "store", tmp_path / "store")
    wide = ["--suite", str(tmp_path / "wide.yaml"), "--store", str(tmp_path / "store")]
    with registry_as_it_was():
        invoke("run", *wide, "--scheduler", "inline", "--device", "cpu")
    invoke("report", *wide, "--suite", "small", "--output", str(tmp_path / "site"))
    data = data_of(tmp_path / "site")
    suites = data["facets"].index("suite")
    named = {tuple(data["pool"][i] for i in row["f"][suites]) for row in data["rows"]}
    assert named == {("small",), ("wide",), ("wide", "small")}


def test_neither_the_suites_file_nor_its_plan_is_needed(folder, tmp_path, monkeypatch):
    """A copied store is enough; what was never run is said."""
    from harness.planning import session

    shutil.copytree(folder / "store", tmp_path / "copied")
    for name in ("open_session", "read_suite"):
        monkeypatch.setattr(session, name, None)
    words = ["--suite", "small", "--store", str(tmp_path / "copied")]
    invoke("report", *words, "--output", str(tmp_path / "site"))
    assert len(data_of(tmp_path / "site")["rows"]) == 5
    assert "A minus B" in invoke("compare", "gaussian_noise", "real_data", *words)
    with pytest.raises(UsageError, match=r"no record of the suite 'smal'.*small"):
        invoke("report", "--suite", "smal", "--store", words[-1], "--output", str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_two_methods_are_compared(folder):
    said = invoke("compare", "gaussian_noise+psaq_ptq", "real_data", *places(folder))
    assert (
        "digits_vit w4a4, digits, budget smoke: A gaussian_noise + psaq_ptq, B real_data + psaq_ptq" in said
    )
    assert re.search(r"A minus B [+-]\d+\.\d\d points, 95 % \S+ to \S+, p \S+: (not )?significant", said)
    assert re.search(r"right in A alone: \d+ images", said)
    assert "method: A gaussian_noise, B real_data" in said


def test_two_stores_are_compared(folder, tmp_path):
    shutil.copytree(folder / "store", tmp_path / "laptop")
    words = [
        "compare",
        str(folder / "store"),
        str(tmp_path / "laptop"),
        "--suite",
        str(folder / "small.yaml"),
    ]
    said = invoke(*words)
    assert said.count("settings, protocol and environment are the same") == 5
    assert "A minus B +0.00 points" in said


def test_what_cannot_be_compared_is_refused(folder):
    with pytest.raises(UsageError, match=r"maskaq: no such row in suite .*: .*gaussian_noise\+psaq_ptq"):
        invoke("compare", "maskaq", "real_data", *places(folder))
    with pytest.raises(UsageError, match="maskaq: is no folder, and the other is"):
        invoke("compare", str(folder), "maskaq", *places(folder))
