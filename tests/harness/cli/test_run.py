"""Whole runs through the command line's own entry, on the embedded digits, with planted methods."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import UsageError
from harness.store import open_store

PLUGIN = Path(__file__).parents[1] / "planted_methods.py"
SUITE = """\
description: planted
task: digits
backbones: [digits_vit]
bits: [w8a8]
methods: [{methods}]
budget: smoke
"""


def harness(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "harness.cli.main", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, cwd=PLUGIN.parents[2]
    )


def invoke(*arguments: str):
    """The command in this process; a UsageError comes out as it is."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory) -> Path:
    """MLflow takes seconds to make a database; tests copy this one."""
    from results.database import local_uri
    from results.tracking import Tracker

    folder = tmp_path_factory.mktemp("database")
    Tracker(local_uri(folder)).load("nothing")
    return folder / "mlflow.db"


@pytest.fixture
def run(tmp_path, empty_database):
    """Run a suite of planted methods inline; returns the result and the store."""

    def go(methods: str, *more: str, verb: str = "run"):
        database = tmp_path / "store" / "mlflow.db"
        if "--dry-run" not in more and not database.exists():
            database.parent.mkdir()
            shutil.copy(empty_database, database)
        suite = tmp_path / "planted.yaml"
        suite.write_text(SUITE.format(methods=methods))
        arguments = [verb, "--suite", str(suite), "--plugin", str(PLUGIN), "--store", str(tmp_path / "store")]
        if verb == "run":
            arguments += ["--scheduler", "inline", "--device", "cpu"]
        return invoke(*arguments, *more), open_store(tmp_path / "store")

    return go


def rows_of(run, methods: str) -> dict[str, dict]:
    result, _ = run(methods, "--format", "json", verb="leaderboard")
    return {row["method"]: row for row in json.loads(result.stdout)}


def test_a_good_run_ends_with_the_leaderboard_and_status_0(run):
    result, store = run("planted_blank")
    assert result.exit_code == 0
    assert "planted_blank + planted_copy" in result.stdout
    assert str(store.root) in result.stdout
    (hint,) = re.findall(r"harness (leaderboard .*)", result.stdout)
    assert "planted_blank" in invoke(*shlex.split(hint)).stdout
    rows = rows_of(run, "planted_blank")
    assert set(rows) == {"fp32", "gaussian_noise", "real_data", "planted_blank"}
    for row in rows.values():
        assert row["mean"] == pytest.approx(rows["fp32"]["mean"])
        assert (row["seeds"], row["images"], row["status"], row["metric"]) == (1, 500, "ok", "top1")
        assert row["agreement"] == 100.0


def test_records_are_tracked_while_the_run_goes_on(run, monkeypatch):
    """At the end nothing is left to be written but what failed."""
    from harness.cli import live_tracking
    from results.tracking import Tracker

    monkeypatch.setattr(live_tracking, "_EVERY_SECONDS", 0)
    monkeypatch.setattr(live_tracking, "_SHARE", 0)
    tracked: list[tuple[list[str], int]] = []
    log = Tracker.log

    def noted(self, records, suite):
        records = list(records)
        written = log(self, records, suite)
        tracked.append(([record.method for record in records], written))
        return written

    monkeypatch.setattr(Tracker, "log", noted)
    run("planted_blank")
    *live, (all_methods, written_in_the_end) = tracked
    assert [(len(methods), written) for methods, written in live] == [(1, 1)] * 4
    assert {method for methods, _ in live for method in methods} == set(all_methods)
    assert written_in_the_end == 0


def test_a_repeated_run_costs_nothing(run):
    run("planted_blank")
    again, _ = run("planted_blank")
    assert again.exit_code == 0
    assert "0 stages run" in again.stdout


def test_a_leaderboard_goes_into_a_file_as_a_whole(run, tmp_path):
    run("planted_blank")
    folder = tmp_path / "reports"
    folder.mkdir()
    shown, _ = run("planted_blank", "--format", "csv", verb="leaderboard")
    written, _ = run("planted_blank", "--format", "csv", "-o", str(folder / "a.csv"), verb="leaderboard")
    assert written.stdout == ""
    assert [file.name for file in folder.iterdir()] == ["a.csv"]
    assert (folder / "a.csv").read_text().rstrip() == shown.stdout.rstrip()
    with pytest.raises(UsageError, match=f"--output {folder}"):
        run("planted_blank", "-o", str(folder), verb="leaderboard")


def test_exactly_what_is_missing_is_run_again(run):
    _, store = run("planted_blank")
    victims = [
        folder
        for folder in (store.root / "artifacts").iterdir()
        if "planted_blank" in (folder / "meta.json").read_text()
    ]
    assert len(victims) == 3
    evaluation = next(v for v in victims if store.meta(v.name)["kind"] == "evaluate")
    (evaluation / "data.safetensors").write_bytes(b"torn")
    again, _ = run("planted_blank")
    assert "is damaged and is made anew" in again.stdout
    assert "1 stages run" in again.stdout


def test_a_failed_trial_is_a_row_with_its_reason_and_status_1(run):
    result, _ = run("planted_broken, planted_blank")
    assert result.exit_code == 1
    (told,) = [line for line in result.stdout.splitlines() if line.startswith("Traceback: ")]
    assert "the generator exploded" in Path(told.removeprefix("Traceback: ")).read_text()
    rows = rows_of(run, "planted_broken, planted_blank")
    assert rows["planted_broken"]["status"] == "failed"
    assert "the generator exploded" in rows["planted_broken"]["reason"]
    assert rows["planted_broken"]["mean"] is None
    assert rows["planted_blank"]["status"] == "ok"


def test_room_is_made_around_what_a_run_that_failed_would_make_again(run):
    methods = "planted_broken, planted_blank"
    _, store = run(methods)
    before = run(methods)[0].stdout.split("stages run")[0].splitlines()[-1]
    made = len(store.stored_keys())
    pruned = invoke("store", "prune", "--older-than", "0h", "--store", str(store.root))
    assert pruned.stdout.endswith("stay: unfinished runs of planted need them\n")
    assert 0 < len(store.stored_keys()) < made
    assert run(methods)[0].stdout.split("stages run")[0].splitlines()[-1] == before


def test_a_collapse_is_tried_with_the_next_seed_then_told(run):
    run("planted_collapsing, planted_collapsing_once")
    rows = rows_of(run, "planted_collapsing, planted_collapsing_once")
    assert "tried 2 seeds" in rows["planted_collapsing"]["reason"]
    assert rows["planted_collapsing_once"]["status"] == "ok"
    assert "repeated with the next seed" in " ".join(rows["planted_collapsing_once"]["notes"])


def test_a_method_that_looks_for_a_data_set_gets_none(run):
    result, _ = run("planted_peeking")
    assert result.exit_code == 1
    assert "tried to read" in rows_of(run, "planted_peeking")["planted_peeking"]["reason"]


def test_a_dry_run_runs_nothing(run):
    result, store = run("planted_blank", "--dry-run")
    assert result.exit_code == 0
    assert "to run" in result.stdout
    assert not store.root.exists()


def test_the_plan_tells_what_is_cached(run):
    run("planted_blank")
    result, _ = run("planted_blank, planted_broken", "--stages", verb="plan")
    assert result.stdout.count("cached") >= 9
    assert result.stdout.count("to run") == 3


def test_a_lost_tracking_database_is_refilled(run):
    _, store = run("planted_blank")
    (store.root / "mlflow.db").rename(store.root / "lost.db")
    done = harness(
        "leaderboard", "--suite", str(store.root.parent / "planted.yaml"), "--plugin", str(PLUGIN),
        "--store", str(store.root), "--format", "csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "planted_blank" in done.stdout
    assert (store.root / "mlflow.db").is_file()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--suite", "digit_w4a4"], "unknown suite 'digit_w4a4': did you mean"),
        (["run", "--suite", "digits_w4a4", "--methods", "psaq,maskq"], "did you mean maskaq"),
        (["run", "--suite", "digits_w4a4", "--set", "maskaq.iteration=3"], "did you mean iterations"),
        (["run", "--suite", "digits_w4a4", "--bits", "w1a1"], "1-bit weights: 2 to 8 are supported"),
        (["run", "--suite", "digits_w4a4", "--seeds", "x"], "'x' is not a whole number"),
        (["run", "--suite", "digits_w4a4", "--scheduler", "slurm"], "one of ray, inline"),
        (["run", "--suite", "digits_w4a4", "--device", "tpu"], "one of auto, cpu, cuda"),
        (["run", "--suite", "digits_w4a4", "--plugin", "absent.py"], "no plug-in at"),
        (["leaderboard", "--suite", "digits_w4a4", "--format", "xls"], "one of table, md, csv, json"),
        (["leaderboard", "--suite", "digits_w4a4", "--store", "absent"], "no store at"),
        (["ui", "--store", "absent"], "no records at"),
        (["list", "methods", "--format", "xml"], "one of table, json"),
        (["synthesize", "--method", "fp32", "--backbone", "digits_vit"], "makes no images"),
        (["synthesize", "--method", "mimq", "--backbone", "digits_vit"], "did you mean mimiq"),
    ],
)
def test_wrong_usage_is_named(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        invoke(*arguments)
    assert expected in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--scheduler", "slurm"], ["--scheduler slurm"]),
        (
            ["tune", "--scheduler", "slurm", "--sampler", "tp", "--final-seeds", "x"],
            ["--scheduler slurm", "--sampler tp", "--final-seeds x"],
        ),
        (["analyze", "--format", "xls", "--output", __file__], ["--format xls", "--output"]),
        (["synthesize", "--backbone", "digits_vit", "--output", "absent/a.png"], ["--output absent/a.png"]),
    ],
)
def test_a_verbs_own_faults_are_said_with_those_of_the_request(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    suite = [] if arguments[0] == "synthesize" else ["--suite", "digits_w4a4"]
    with pytest.raises(UsageError) as error:
        invoke(*arguments, *suite, "--methods", "maskq", "--bits", "w9a9")
    for said in (*expected, "unknown method 'maskq'", "9-bit weights"):
        assert str(error.value).count(said) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_tracking_server_that_cannot_be_used_is_said_before_any_work(run, tmp_path):
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(UsageError, match="tracking database"):
        run("planted_blank", "--tracking-uri", f"sqlite:///{tmp_path}/text.db")
    assert not (tmp_path / "store" / "artifacts").exists()


def test_wrong_usage_ends_with_status_2_on_standard_error():
    done = harness(
        "run", "--suite", "imagenet_w4a4", "--backbones", "deit_tiny", "--data", "imagenet=/absent"
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "harness: " in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_of_another_model_are_refused(tmp_path):
    from backbones import SPECS, find_weights

    folder = tmp_path / "val" / "n01440764"
    folder.mkdir(parents=True)
    from PIL import Image

    for index in range(12):
        Image.new("RGB", (32, 32), (index * 20, 0, 0)).save(folder / f"{index}.JPEG")
    weights = find_weights(SPECS["digits_vit"])
    done = harness(
        "run", "--suite", "imagenet_w8a8", "--backbones", "deit_tiny", "--methods", "psaq_vit",
        "--seeds", "0", "--data", f"imagenet={tmp_path}", "--weights", f"deit_tiny={weights}",
        "--store", str(tmp_path / "store"), "--scheduler", "inline",
    )  # fmt: skip
    assert done.returncode == 2
    assert "does not fit deit_tiny" in done.stderr


def test_ctrl_c_keeps_what_is_done_and_tells_how_to_resume(tmp_path):
    arguments = [
        "run", "--suite", "digits_w5a5", "--methods", "psaq_vit", "--scheduler", "inline",
        "--store", str(tmp_path / "my store"), "--set", "psaq_vit.iterations=4000",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.cli.main", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PLUGIN.parents[2],
    )  # fmt: skip
    store = open_store(tmp_path / "my store")
    deadline = time.time() + 120
    while time.time() < deadline and not (
        any((store.root / "artifacts").glob("*")) and any((store.root / "progress").glob("[!.]*.json"))
    ):
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command runs what is missing" in output
    assert shlex.split(output.splitlines()[-1]) == ["harness", *arguments]
    assert any((store.root / "artifacts").iterdir())
    assert list((store.root / "partial").iterdir()) == []


@pytest.fixture(scope="module")
def inline_run(tmp_path_factory):
    """Runs one small suite, the same at every call, in an interpreter that first executes some code."""
    words = [
        "harness", "run", "--suite", "digits_w5a5", "--methods", "psaq_vit", "--budget", "smoke", "--device",
        "cpu", "--scheduler", "inline", "--store", str(tmp_path_factory.mktemp("inline")),
    ]  # fmt: skip

    def run(before: str = "") -> subprocess.CompletedProcess:
        code = (
            f"import atexit, sys; {before}\n"
            "atexit.register(lambda: print(' '.join(sys.modules), file=sys.stderr))\n"
            "from harness.cli.main import main\n"
            f"sys.argv = {words!r}\n"
            "main()"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, cwd=PLUGIN.parents[2])
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_the_inline_scheduler_needs_no_ray(inline_run):
    assert "psaq_vit" in inline_run("sys.modules['ray'] = None").stdout


def test_a_run_again_shows_the_same_and_loads_nothing_heavy(inline_run):
    def table(output: str) -> str:
        return output[: output.index("stages run")].rstrip(" 0123456789")

    first, again = inline_run().stdout, inline_run()
    assert "0 stages run" in again.stdout
    assert table(again.stdout) == table(first)[table(first).index("digits, published track") :]
    heavy = {
        "torch",
        "timm",
        "torchvision",
        "transformers",
        "ray",
        "mlflow",
        "optuna",
        "pandas",
        "sklearn.base",
    }
    assert heavy.isdisjoint(again.stderr.splitlines()[-1].split())


def test_synthesize_writes_a_picture(tmp_path):
    from PIL import Image

    picture = tmp_path / "grid.png"
    result = invoke(
        "synthesize", "--method", "psaq_vit", "--backbone", "digits_vit", "--budget", "smoke",
        "--output", str(picture), "--store", str(tmp_path / "store"), "--device", "cpu",
    )  # fmt: skip
    assert "4 images of psaq_vit" in result.stdout
    with Image.open(picture) as grid:
        assert grid.size == (196, 196)


@pytest.mark.parametrize("kind", ["suites", "methods", "engines", "backbones", "tasks"])
def test_everything_can_be_listed(kind):
    rows = json.loads(invoke("list", kind, "--format", "json", "--verbose").stdout)
    assert rows
    assert all(row["name"] for row in rows)
    assert invoke("list", kind).exit_code == 0
    assert invoke("list", kind, "--verbose").exit_code == 0


def test_doctor_says_how_to_get_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = " ".join(invoke("doctor").stdout.split())
    assert "--data imagenet=DIR" in text
    assert "HARNESS_DATA_IMAGENET" in text
    assert "shipped (digits_vit.safetensors)" in text
