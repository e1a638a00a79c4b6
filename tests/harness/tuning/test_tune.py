"""Whole searches through the command line's own entry, with a planted engine that a setting damages."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import HarnessError, UsageError
from harness.planning import session
from harness.store import open_store
from results.database import local_uri
from results.grouping import gathered
from results.tracking import Tracker, TrackingError
from tests.registry_guard import registry_as_it_was

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = Path(__file__).parent / "planted_search.py"
SUITE = """\
description: planted.
task: digits
backbones: [digits_vit]
bits: [w8a8]
methods: [planted_dots, planted_other, planted_plain]
budget: smoke
overrides: {mimiq: {batch_size: 128}}
"""
STUDY = "planted-planted_dots-planted_damage-digits_vit-w8a8-"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A store with a database, full-precision scores and probe images: every search starts with these."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "planted.yaml").write_text(SUITE)
    with registry_as_it_was():  # a fixture of the module comes before what guards each test
        for objective in ("agreement", "accuracy"):
            done = invoke(folder, "--method", "planted_dots", "--trials", "1", "--objective", objective)
            assert done.exit_code == 0
    shutil.rmtree(folder / "store" / "studies")
    (folder / "store" / "mlflow.db").unlink()
    Tracker(local_uri(folder / "store")).load("nothing")
    return folder


AGREEMENT = ("--objective", "agreement")
"""Easy to foresee for planted damage."""


def arguments(folder: Path, *more: str) -> list[str]:
    return ["tune", *common(folder, *more), *(() if "--objective" in more else AGREEMENT)]


def common(folder: Path, *more: str) -> list[str]:
    places = ["--suite", str(folder / "planted.yaml"), "--store", str(folder / "store")]
    where = [*places, "--plugin", str(PLUGIN), "--device", "cpu"]
    scheduler = [] if "--scheduler" in more else ["--scheduler", "inline"]
    return [*where, *scheduler, *more]


def invoke(folder: Path, *more: str):
    return ended(arguments(folder, *more))


def ended(words: list[str]):
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path, prepared, request, monkeypatch) -> Path:
    """A copy of the prepared store; plots and MLflow take seconds and are left out but in a `whole` test."""
    if "whole" not in request.keywords:
        monkeypatch.setattr("harness.tuning.outcome.write_plots", lambda *_: [])
        monkeypatch.setattr("harness.cli.tracking.Tracker", Memory)
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path


def trials(folder: Path, name: str = f"{STUDY}agreement") -> list[dict[str, str]]:
    with (folder / "store" / "studies" / name / "trials.csv").open() as file:
        return list(csv.DictReader(file))


class Memory:
    """Takes a tracker's place and keeps the records of each suite, and the tries of each search."""

    logged: ClassVar[dict[str, list[Any]]] = {}
    tries: ClassVar[dict[str, list[int]]] = {}
    verdicts: ClassVar[dict[str, str]] = {}

    def __init__(self, uri: str, on_set_aside: Any = None) -> None:
        self.shown_uri = uri

    def log(self, records: Any, suite: str) -> None:
        self.logged[suite] = list(records)

    def log_board(self, board: Any) -> bool:
        return board.suite in self.logged

    def open_search(self, study: str, facts: Any) -> str:
        return study

    def log_try(self, parent: str, number: int, record: Any) -> None:
        assert record.split in ("tune", "synthetic")
        self.tries.setdefault(parent, []).append(number)

    def logged_tries(self, parent: str) -> set[int]:
        return set(self.tries.get(parent, ()))

    def close_search(self, parent: str, values: Any, folder: Path) -> None:
        assert folder.is_dir()

    def log_verdict(self, study: str, metrics: Any, sentence: str, settings: Path) -> None:
        assert settings.is_file()
        self.verdicts[study] = sentence


def test_a_search_finds_less_damage_and_measures_it_on_other_images_and_seeds(folder):
    done = invoke(
        folder, "--method", "planted_dots", "--trials", "12", "--objective", "accuracy", "--pruner", "none"
    )
    assert done.exit_code == 0
    rows = trials(folder, f"{STUDY}accuracy")
    # Three of the twelve scorings are kept for the finalists: two tries, once each.
    assert len(rows) == 9
    assert [len(row["again"].split()) for row in rows].count(1) == 2
    assert rows[0]["default"] == "True"
    assert float(rows[0]["planted_damage.damage"]) == 0.3
    best = yaml.safe_load((folder / "store" / "studies" / f"{STUDY}accuracy" / "best.yaml").read_text())
    assert set(best["overrides"]["planted_dots"]) == {"contrast", "planted_damage"}
    facts = best["tuned"]["planted_dots"]
    assert (facts["trials"], facts["objective"], facts["split"]) == (11, "accuracy", "tune")
    final = Memory.logged[f"{STUDY}accuracy-final"]
    by_method = {(r.method, bool(r.tuning)): r for r in final}
    assert {r.split for r in final} == {"report"}
    assert {r.seed for r in final if r.method == "planted_dots"} == {1, 2, 3}
    tuned, default = by_method["planted_dots", True], by_method["planted_dots", False]
    assert tuned.metrics["top1"] >= default.metrics["top1"]
    assert "paper defaults" in done.stdout
    assert "tuned, 11 trials" in done.stdout
    said = " ".join(done.stdout.split())
    assert f"scored accuracy {facts['while_searching']:.2f} while searching" in said
    assert f"planted_dots: {facts['verdict']}" in done.stdout
    assert Memory.verdicts[f"{STUDY}accuracy"] == facts["verdict"]


@pytest.mark.whole
def test_tries_are_nested_runs_scored_on_the_tuning_split_which_reporting_never_reads(folder):
    from tasks.digits import Digits

    invoke(folder, "--method", "planted_dots", "--trials", "2", "--objective", "accuracy")
    from mlflow import MlflowClient

    client = MlflowClient(local_uri(folder / "store"))
    runs = client.search_runs([client.get_experiment_by_name("dfq-harness").experiment_id])
    (parent,) = [run for run in runs if "study" in run.data.tags]
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(nested) == 2
    assert not any(key.startswith("suite.") for run in nested for key in run.data.tags)
    tried = [json.loads(run.data.tags["record.000"]) for run in nested]
    assert {record["split"] for record in tried} == {"tune"}
    assert {record["samples_digest"] for record in tried} == {Digits().facts("tune").digest}
    final = Tracker(local_uri(folder / "store")).load(f"{STUDY}accuracy-final")
    assert {record.samples_digest for record in final} == {Digits().facts("report").digest}
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"best.yaml", "trials.csv", "history.html", "history.png", "slice.png"} <= files


class Lost(Memory):
    """Is lost after two tries."""

    def log_try(self, parent: str, number: int, record: Any) -> None:
        self._fail_when_lost(parent)
        super().log_try(parent, number, record)

    def close_search(self, parent: str, values: Any, folder: Path) -> None:
        self._fail_when_lost(parent)

    def log(self, records: Any, suite: str) -> None:
        raise TrackingError("the tracking server is lost")

    def _fail_when_lost(self, parent: str) -> None:
        if len(self.tries.get(parent, ())) == 2:
            raise TrackingError("the tracking server is lost")


def test_a_lost_tracking_server_costs_no_try_and_resuming_tracks_what_it_missed(folder, monkeypatch):
    monkeypatch.setattr(Memory, "tries", {})
    monkeypatch.setattr("harness.cli.tracking.Tracker", Lost)
    result = CliRunner().invoke(app, arguments(folder, "--method", "planted_dots", "--trials", "4"))
    assert isinstance(result.exception, HarnessError)
    assert not isinstance(result.exception, UsageError)
    store = folder / "store"
    assert str(result.exception) == (
        f"tries and results are safe in {store}, but the tracking server is lost; the same command with "
        "--resume tracks them"
    )
    assert result.stdout.count("warning: the tracking server is lost; the search goes on") == 1
    assert "paper defaults" in result.stdout
    assert [row["state"] for row in trials(folder)] == ["complete"] * 4
    study = f"{STUDY}agreement"
    assert Memory.tries == {study: [0, 1]}
    monkeypatch.setattr("harness.cli.tracking.Tracker", Memory)
    invoke(folder, "--method", "planted_dots", "--trials", "4", "--resume")
    assert Memory.tries == {study: [0, 1, 2, 3]}
    assert {record.split for record in Memory.logged[f"{study}-final"]} == {"report"}


@pytest.mark.whole
@pytest.mark.slow
def test_a_tracking_server_that_ends_in_the_middle_gets_every_try_later(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    with served(tmp_path, port) as server:
        searching = start(folder, "--trials", "6", "--tracking-uri", uri)
        wait_for(lambda: len(finished_numbers(folder)) >= 2)
        os.killpg(server.pid, signal.SIGKILL)
        assert searching.wait(timeout=300) == 2
    (log,) = folder.glob("log-*")
    assert "the search goes on" in log.read_text()
    assert "the same command with --resume" in " ".join(log.read_text().split())
    assert len(finished_numbers(folder)) == 6
    with served(tmp_path, port):
        again = start(folder, "--trials", "6", "--tracking-uri", uri, "--resume")
        assert again.wait(timeout=300) == 0
        tracker = Tracker(uri)
        parent = tracker.open_search(f"{STUDY}agreement", {})
        assert tracker.logged_tries(parent) == set(range(6))


@contextlib.contextmanager
def served(folder: Path, port: int) -> Iterator[subprocess.Popen]:
    """An MLflow server on a database in the folder, which answers."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/served.db"]
    server = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )
    try:
        wait_for(lambda: answers(port), 300)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_the_data_free_objective_is_the_default_and_reads_no_data_at_all(folder, monkeypatch):
    from tasks.digits import Digits

    seen = []
    original = Digits.evaluate

    def watched(self, model, backbone, split, options):
        seen.append(split)
        return original(self, model, backbone, split, options)

    monkeypatch.setattr(Digits, "evaluate", watched)
    ended(["tune", *common(folder, "--method", "planted_dots", "--trials", "3")])
    rows = trials(folder, f"{STUDY}closeness")
    assert len(rows) == 3
    closeness = {float(row["planted_damage.damage"]): float(row["closeness"]) for row in rows}
    assert min(closeness.values()) == closeness[max(closeness)] < max(closeness.values()) <= 0
    assert seen == ["report"] * 3  # the tuned row of the final comparison; the rest was there


def test_one_job_repeats_exactly(folder, tmp_path):
    columns = []
    for copy in ("a", "b"):
        other = tmp_path / copy
        shutil.copytree(folder, other, ignore=shutil.ignore_patterns("a", "b"))
        invoke(other, "--method", "planted_dots", "--trials", "11", "--jobs", "1")
        columns.append([(row["agreement"], row["planted_damage.damage"]) for row in trials(other)])
    assert columns[0] == columns[1]


def test_notes_about_weights_are_said_once_as_a_run_says_them(folder, monkeypatch):
    found = session.find_weight_files
    note = ("weights of digits_vit: something is taken",)
    monkeypatch.setattr(session, "find_weight_files", lambda *a, **k: found(*a, **k)._replace(notes=note))
    done = invoke(folder, "--method", "planted_dots", "--trials", "1")
    assert done.stdout.count(f"note: {note[0]}") == 1


def test_a_repeated_search_costs_no_stage(folder):
    invoke(folder, "--method", "planted_dots", "--trials", "3")
    before = set((folder / "store" / "artifacts").iterdir())
    done = invoke(folder, "--method", "planted_dots", "--trials", "3", "--resume")
    assert done.exit_code == 0
    assert set((folder / "store" / "artifacts").iterdir()) == before
    assert len(trials(folder)) == 3


def test_the_best_settings_run_in_any_suite_and_say_how_they_were_found(folder):
    invoke(folder, "--method", "planted_dots", "--trials", "3")
    best = folder / "store" / "studies" / f"{STUDY}agreement" / "best.yaml"
    narrowed = ["--methods", "planted_dots", "--set-file", str(best), "--seeds", "1"]
    run = ["run", *common(folder, *narrowed)]
    done = CliRunner().invoke(app, run)
    assert done.exit_code == 0
    (record,) = [r for r in Memory.logged["planted"] if r.method == "planted_dots"]
    assert record.tuning["trials"] == 3
    assert "tuned, 3 trials" in done.stdout
    if record.tuning["recommended"] == "the defaults":
        assert f"planted_dots: {record.tuning['verdict']}" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "no verdict: planted_dots was not compared with its defaults to the end"),
        ({"verdict": "worse by 30.50", "recommended": "the defaults"}, "planted_dots: worse by 30.50"),
        ({"verdict": "better by 1.00", "recommended": "these settings"}, ""),
        ({"verdict": "a\x1b[31m line", "recommended": "?"}, "planted_dots: a\\x1b[31m line"),
    ],
)
def test_settings_that_were_not_measured_to_be_better_say_so_when_they_are_used(tmp_path, facts, said):
    (tmp_path / "planted.yaml").write_text(SUITE)
    best = tmp_path / "best.yaml"
    content = {"overrides": {"planted_dots": {"contrast": 0.5}}, "tuned": {"planted_dots": facts}}
    best.write_text(yaml.safe_dump(content))
    words = ["plan", "--suite", str(tmp_path / "planted.yaml"), "--set-file", str(best)]
    planned = CliRunner().invoke(
        app,
        [*words, "--store", str(tmp_path / "store"), "--plugin", str(PLUGIN), "--methods", "planted_dots"],
    )
    assert planned.exit_code == 0
    shown = " ".join(planned.stdout.split())
    assert said in shown
    assert ("verdict" in shown or "planted_dots:" in shown) == bool(said)


def test_several_methods_get_the_same_budget_and_end_in_a_suite(folder):
    done = invoke(folder, "--method", "planted_dots,planted_other", "--trials", "2")
    assert done.exit_code == 0
    written = yaml.safe_load((folder / "store" / "studies" / "planted-tuned.yaml").read_text())
    for name in ("planted_dots", "planted_other"):
        (variant,) = written["variants"][name]
        assert variant["tuned"]["trials"] == 2
        assert variant["tuned"]["equally"] is True
    rows = Memory.logged["planted-tuned"]
    assert {"gaussian_noise", "real_data", "planted_dots", "planted_other"} <= {r.method for r in rows}
    assert done.stdout.count("equally tuned, 2") == 2
    labels = {row.variant for row in gathered(rows) if row.first.method == "planted_dots"}
    assert labels == {"paper defaults", "equally tuned, 2 trials"}
    again = ["plan", "--suite", str(folder / "store" / "studies" / "planted-tuned.yaml")]
    planned = CliRunner().invoke(app, [*again, "--store", str(folder / "store"), "--plugin", str(PLUGIN)])
    assert planned.exit_code == 0  # the written suite is one like any other


@pytest.mark.whole
def test_costs_beside_quality_give_a_pareto_front(folder):
    done = invoke(
        folder,
        "--method",
        "planted_dots",
        "--trials",
        "4",
        "--objective",
        "agreement,seconds",
        "--sampler",
        "nsga2",
    )
    assert done.exit_code == 0
    name = f"{STUDY}agreement-seconds"
    front = [line for line in done.stdout.splitlines() if line.startswith("Pareto front: try")]
    points = [(float(row["agreement"]), float(row["seconds"])) for row in trials(folder, name)]
    assert front
    assert all(b > 0 for _, b in points)
    assert (folder / "store" / "studies" / name / "pareto_front.png").is_file()


def test_a_grid_tries_every_point_once(folder):
    (folder / "space.yaml").write_text(
        "planted_dots: {contrast: false}\nplanted_damage: {damage: {low: 0.0, high: 1.0}, kind: false}\n"
    )
    space = ["--space", str(folder / "space.yaml"), "--sampler", "grid", "--grid-points", "3"]
    invoke(folder, "--method", "planted_dots", *space)
    tried = sorted(float(row["planted_damage.damage"]) for row in trials(folder))
    assert tried == [0.0, 0.3, 0.5, 1.0]  # three points and the setting before the search


def test_a_budget_in_seconds_ends_the_search_and_late_tries_do_not_count(folder, monkeypatch):
    monkeypatch.setenv("PLANTED_SECONDS", "0.4")
    invoke(folder, "--method", "planted_dots", "--trials", "50", "--budget-seconds", "4")
    states = [row["state"] for row in trials(folder)]
    assert 1 <= len(states) < 5
    assert states[-1] == "late"
    assert set(states[:-1]) == {"complete"}
    best = yaml.safe_load((folder / "store" / "studies" / f"{STUDY}agreement" / "best.yaml").read_text())
    assert best["tuned"]["planted_dots"]["trials"] == len(states) - 1


def test_a_try_that_falls_behind_is_pruned_while_it_trains(folder):
    (folder / "space.yaml").write_text(
        "planted_dots: {contrast: false}\nplanted_damage: {damage: {low: 0.0, high: 4.0}, kind: false}\n"
    )
    space = ["--space", str(folder / "space.yaml"), "--set", "planted_damage.epochs=6"]
    invoke(folder, "--method", "planted_dots", "--trials", "12", "--sampler", "random", *space)
    rows = trials(folder)
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned
    best = max(float(row["agreement"]) for row in rows if row["state"] == "complete")
    assert all(float(row["agreement"]) < best for row in pruned)
    stopped = open_store(folder / "store").root / "reports"
    reports = [json.loads(file.read_text()) for file in stopped.glob("*.json")]
    assert min(map(len, reports)) < 6


@pytest.mark.ray
def test_through_ray_a_pruned_try_frees_its_worker_within_an_epoch(folder, monkeypatch):
    monkeypatch.setenv("PLANTED_SECONDS", "0.8")
    (folder / "space.yaml").write_text(
        "planted_dots: {contrast: false}\nplanted_damage: {damage: {low: 0.0, high: 4.0}, kind: false}\n"
    )
    space = ["--space", str(folder / "space.yaml"), "--set", "planted_damage.epochs=4"]
    more = ["--trials", "15", "--sampler", "random", "--jobs", "2", "--scheduler", "ray"]
    done = invoke(folder, "--method", "planted_dots", *more, *space)
    assert done.exit_code == 0, done.output
    rows = trials(folder)
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned
    reports = open_store(folder / "store").root / "reports"
    lengths = sorted(len(json.loads(file.read_text())) for file in reports.glob("*.json"))
    # Its first report falls behind, and the worker may finish the epoch that runs when it is asked to stop.
    assert lengths[0] <= 2


def start(folder: Path, *more: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "harness.cli.main",
        *arguments(folder, "--method", "planted_dots", *more),
    ]
    environment = {**os.environ, "PLANTED_SECONDS": "0.15"}
    log = (folder / f"log-{time.monotonic_ns()}").open("w")
    with log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def finished_numbers(folder: Path) -> list[int]:
    from optuna.trial import TrialState

    from harness.tuning.storage import open_storage

    storage = open_storage(None, folder / "store")
    found = [s for s in storage.get_all_studies() if s.study_name == f"{STUDY}agreement"]
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    return [t.number for s in found for t in storage.get_all_trials(s._study_id) if t.state in done]


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_search_killed_in_the_middle_goes_on_without_losing_a_try(folder):
    process = start(folder, "--trials", "8")
    wait_for(lambda: len(finished_numbers(folder)) >= 3)
    time.sleep(0.3)  # into the next try
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = finished_numbers(folder)
    done = invoke(folder, "--method", "planted_dots", "--trials", "8", "--resume")
    assert "interrupted and queued again" in done.stdout
    rows = trials(folder)
    assert set(before) <= {int(row["number"]) for row in rows if row["state"] != "fail"}
    (lost,) = [row for row in rows if row["state"] == "fail"]
    same = [row for row in rows if row["planted_damage.damage"] == lost["planted_damage.damage"]]
    assert len(same) == 2
    assert len([row for row in rows if row["state"] in ("complete", "pruned")]) == 8


def test_two_processes_share_a_study(folder):
    first = start(folder, "--trials", "8")
    wait_for(lambda: len(finished_numbers(folder)) >= 1)
    second = start(folder, "--trials", "8", "--resume")
    assert (first.wait(timeout=120), second.wait(timeout=120)) == (0, 0)
    from harness.tuning.storage import open_storage

    study = open_storage(None, folder / "store")
    (found,) = study.get_all_studies()
    tried = study.get_all_trials(found._study_id)
    assert len(tried) == 8
    owners = [t.user_attrs["owner"] for t in tried]
    assert len(set(owners)) == 2
    assert len({tuple(t.params.values()) for t in tried}) == 8


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--method", "planted_dotz"], "unknown method 'planted_dotz'"),
        (["--method", "planted_plain"], "nothing can be searched of planted_plain with planted_frozen"),
        (["--method", "planted_dots", "--sampler", "tpee"], "--sampler tpee: unknown: did you mean tpe"),
        (["--method", "planted_dots", "--objective", "acuracy"], "did you mean accuracy"),
        (
            ["--method", "planted_dots", "--objective", "seconds"],
            "exactly one of accuracy, closeness",
        ),
        (["--method", "planted_dots", "--objective", "accuracy,gpu_seconds"], "use seconds"),
        (
            ["--method", "planted_dots", "--objective", "agreement,seconds", "--pruner", "median"],
            "is not pruned",
        ),
        (["--method", "planted_dots", "--bits", "w4a4,w8a8"], "a search is about one bits"),
        (["--method", "planted_dots", "--study", "a b"], "letters, digits"),
        (["--method", "planted_dots", "--study", ".."], "--study '..': a name does not begin with"),
        (
            ["--method", "planted_dots", "--study", "journal.log"],
            "this name is that of another file",
        ),
        (["--method", "planted_dots", "--seed", "-1"], "--seed -1: from 0 to 2147483647"),
        (
            ["--method", "planted_dots", "--probe", "image_folder"],
            "--probe image_folder: no folder was given",
        ),
        (["--method", "planted_dots", "--probe", "maskaq"], "makes images from the teacher alone"),
        (["--method", "planted_dots", "--study-storage", "sqlite:////nowhere/x.db"], "cannot be used"),
        ([], "choose with --method NAME"),
        (["--all-methods", "--study", "x"], "are about one method"),
    ],
)
def test_wrong_usage_is_said_in_a_sentence_and_leaves_nothing(tmp_path, more, said):
    (tmp_path / "planted.yaml").write_text(SUITE)
    with pytest.raises(UsageError) as error:
        invoke(tmp_path, *more)
    assert said in str(error.value)
    assert not (tmp_path / "store" / "studies").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "a name has at least one letter"),
        (".", "a name does not begin with '.' or '-'"),
        ("..", "a name does not begin with '.' or '-'"),
        ("-x", "a name does not begin with '.' or '-'"),
        ("../x", "a study's name has letters, digits, '.', '_' and '-' only"),
        ("a/b", "a study's name has letters, digits, '.', '_' and '-' only"),
        ("a\0b", "a study's name has letters, digits, '.', '_' and '-' only"),
        ("a\udcffb", "a study's name has letters, digits, '.', '_' and '-' only"),
        ("x" * 101, "a name has at most 100 bytes"),
        ("owners", "this name is that of another file of the store"),
        ("journal.log", "this name is that of another file of the store"),
        ("other-final.yaml", "this name is that of another file of the store"),
    ],
)
def test_a_study_whose_name_could_lie_elsewhere_is_refused_before_anything_is_made(tmp_path, name, said):
    (tmp_path / "planted.yaml").write_text(SUITE)
    with pytest.raises(UsageError) as error:
        invoke(tmp_path, "--method", "planted_dots", f"--study={name}")
    assert str(error.value) == f"--study {name!r}: {said}"
    assert [path.name for path in tmp_path.iterdir()] == ["planted.yaml"]


def test_a_study_that_cannot_be_called_after_its_suite_asks_for_a_name(tmp_path):
    (tmp_path / "planted.yaml").write_text(SUITE)
    spaced = (tmp_path / "planted.yaml").rename(tmp_path / "my suite.yaml")
    with pytest.raises(
        UsageError, match=r"the study would be called my suite-\S+, but .*: give --study NAME"
    ):
        invoke(tmp_path, "--method", "planted_dots", "--suite", str(spaced))
    assert [path.name for path in tmp_path.iterdir()] == ["my suite.yaml"]
