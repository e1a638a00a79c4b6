"""`harness leaderboard` reads records alone: no suite file, plug-in, weights or data are needed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.planning import plan, stage_builder
from harness.store import open_store
from tests.registry_guard import registry_as_it_was

PLUGIN = Path(__file__).parents[1] / "planted_methods.py"
SUITE = """\
description: planted
task: digits
backbones: [digits_vit, digits_swin]
bits: [w8a8]
methods: [planted_blank, planted_broken]
seeds: [0, 1, 2]
budget: smoke
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A store in which the suite ran on one backbone of two, with two seeds of three; some trials failed."""
    import contextlib
    import io

    from typer.testing import CliRunner

    from harness.cli.main import app

    folder = tmp_path_factory.mktemp("ran")
    (folder / "planted.yaml").write_text(SUITE)
    words = ["run", "--suite", str(folder / "planted.yaml"), "--plugin", str(PLUGIN), "--scheduler", "inline"]
    words += ["--device", "cpu", "--backbones", "digits_vit", "--seeds", "0,1", "--store", str(folder / "s")]
    with registry_as_it_was(), contextlib.redirect_stdout(io.StringIO()):
        assert CliRunner().invoke(app, words).exit_code == 1
    return folder / "s"


@pytest.fixture
def store(ran, tmp_path) -> Path:
    """That store elsewhere, without its tracking database."""
    return Path(shutil.copytree(ran, tmp_path / "copied", ignore=shutil.ignore_patterns("mlflow.db*")))


@pytest.fixture
def board(harness, store):
    """Run the verb on the copied store; its rows by method, and what stderr says."""

    def show(*more: str) -> tuple[dict[str, dict], str]:
        status, out, err = harness(
            "leaderboard", "--suite", "planted", "--store", str(store), "-f", "json", *more
        )
        assert status == 0, err
        return {row["method"]: row for row in json.loads(out)}, err

    return show


def test_a_copied_store_is_enough(board):
    rows, said = board()
    assert {name: row["status"] for name, row in rows.items()} == {
        "fp32": "ok",
        "gaussian_noise": "ok",
        "real_data": "ok",
        "planted_blank": "ok",
        "planted_broken": "failed",
    }
    assert rows["planted_broken"]["reason"] == "synthesize: RuntimeError: planted: the generator exploded"
    assert said == (
        "harness: Not all of planted: never run: backbones digits_swin; seeds 2; 2 of 9 trials failed.\n"
    )


def test_what_was_not_run_is_said_below_a_table(harness, store):
    out = harness("leaderboard", "--suite", "anywhere/planted.yaml", "--store", str(store))[1]
    assert "Not all of planted: never run: backbones digits_swin" in out


def test_old_records_are_shown_when_the_code_changed_since(board, monkeypatch):
    monkeypatch.setattr(plan, "KEY_RECIPE", 99)
    monkeypatch.setattr(stage_builder, "KEY_RECIPE", 99)
    rows, said = board("--plugin", str(PLUGIN))
    assert rows["gaussian_noise"]["seeds"] == 2
    assert "The code has changed since for 7 of 9 trials of planted" in said


def test_a_seed_without_a_result_is_counted_in_the_row_of_the_others(board, store):
    opened = open_store(store)
    one = next(t for p in opened.plans() for t in p.trials if t["method"] == "planted_blank")
    shutil.rmtree(opened.place(one["trial"]))
    row = board()[0]["planted_blank"]
    assert (row["seeds"], row["seeds_planned"], row["status"]) == (1, 2, "partial")


def test_options_choose_among_the_records(board):
    rows, _ = board("--methods", "planted_blank", "--seeds", "1", "--bits", "W8A8")
    assert set(rows) == {"fp32", "gaussian_noise", "real_data", "planted_blank"}
    assert rows["planted_blank"]["seeds"] == 1
    assert set(board("--set", "planted_blank.images=2", "--budget", "smoke")[0]) == {*rows, "planted_broken"}


def test_what_no_record_has_is_a_fault_and_all_are_said_together(harness, store):
    words = ["--methods", "planted_blnk", "--bits", "w4a4", "--set", "planted_blank.images=7"]
    status, _, said = harness("leaderboard", "--suite", "planted", "--store", str(store), *words)
    assert status == 2
    assert "--methods planted_blnk: no record has it: did you mean planted_blank" in said
    assert "--bits w4a4: no record has it" in said
    assert "--set planted_blank.images=7: no record has it" in said


def test_a_suite_without_records_is_named_with_those_that_have_some(harness, store):
    status, _, said = harness("leaderboard", "--suite", "plantd", "--store", str(store))
    assert status == 2
    assert f"no record of the suite 'plantd' in {store}" in said
    assert "did you mean planted" in said


def test_a_plan_that_is_torn_costs_what_it_holds_alone(board, store):
    (file,) = (store / "plans").iterdir()
    said = json.loads(file.read_text())
    said["trials"][3]["seed"] = "three"
    file.write_text(json.dumps(said))
    assert set(board()[0]) == {"fp32", "gaussian_noise", "real_data", "planted_blank", "planted_broken"}
