"""Records go to MLflow and come back whole, once per trial."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import random
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from results import tracking
from results.database import local_uri
from results.leaderboard import leaderboard
from results.record import Record
from results.renderers import render
from results.shown_boards import shown_board
from results.tracking import Tracker, TrackingError
from tests.results.fakes import detection, failed, record


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """One database for the module: creating it takes seconds. Tests use suites and trials of their own."""
    return Tracker(local_uri(tmp_path_factory.mktemp("a store")))


def runs_of(tracker: Tracker, trial: str) -> dict[str, dict[str, str]]:
    """Run id -> tags, straight from the database."""
    connection = sqlite3.connect(tracker.uri.removeprefix("sqlite:///"))
    rows = connection.execute("select run_uuid, key, value from tags").fetchall()
    connection.close()
    tags: dict[str, dict[str, str]] = {}
    for run, key, value in rows:
        tags.setdefault(run, {})[key] = value
    return {run: values for run, values in tags.items() if values.get("trial") == trial}


def column(tracker: Tracker, query: str) -> dict[str, object]:
    connection = sqlite3.connect(tracker.uri.removeprefix("sqlite:///"))
    rows = dict(connection.execute(query).fetchall())
    connection.close()
    return rows


def test_records_come_back_as_they_were(tracker: Tracker):
    records = [record(seed=seed, notes=("one | note", "zwei – Ünïcode")) for seed in (0, 1)] + [failed()]
    assert tracker.log(records, "round_trip") == 3
    assert sorted(tracker.load("round_trip"), key=lambda r: r.trial) == sorted(records, key=lambda r: r.trial)


def test_a_second_tracker_reads_the_same_database(tracker: Tracker):
    written = record("other_reader")
    tracker.log([written], "other_reader")
    assert Tracker(tracker.uri).load("other_reader") == [written]


def test_everything_lies_in_a_store_whatever_its_path(tmp_path: Path):
    store = tmp_path / "why?now 50%20 #1"
    tracker = Tracker(local_uri(store))
    tracker.log([record("odd_path")], "odd_path")
    assert (store / "mlflow.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [store.name]
    assert len(Tracker(tracker.uri).load("odd_path")) == 1


def test_an_unknown_suite_is_empty(tracker: Tracker):
    assert tracker.load("nobody_ran_this") == []


def test_logging_twice_writes_once(tracker: Tracker):
    records = [record("twice", seed=seed) for seed in (0, 1)]
    assert tracker.log(records, "twice") == 2
    assert tracker.log(records, "twice") == 0
    assert len(runs_of(tracker, records[0].trial)) == 1


def test_a_trial_may_belong_to_several_suites(tracker: Tracker):
    shared = record("shared_trial")
    tracker.log([shared], "first suite")
    assert tracker.log([shared], "second (draft) suite.v2") == 0
    assert tracker.load("first suite") == tracker.load("second (draft) suite.v2") == [shared]


def test_a_trial_in_two_tracks_has_a_run_in_each(tracker: Tracker):
    published = record("two_tracks", trial="two_tracks")
    controlled = dataclasses.replace(published, track="controlled")
    assert tracker.log([published], "the_papers") == 1
    assert tracker.log([controlled], "the_grid") == 1
    assert (tracker.load("the_papers"), tracker.load("the_grid")) == ([published], [controlled])


def test_a_success_replaces_a_failure_and_keeps_its_suites(tracker: Tracker):
    failure = failed("replaced", trial="replaced")
    success = record("replaced", trial="replaced")
    tracker.log([failure], "suite_before")
    assert tracker.log([success], "suite_after") == 1
    assert tracker.load("suite_before") == tracker.load("suite_after") == [success]
    superseded = ["superseded" in tags for tags in runs_of(tracker, "replaced").values()]
    assert sorted(superseded) == [False, True]


def test_a_failure_does_not_replace_a_result(tracker: Tracker):
    success = record("kept", trial="kept")
    tracker.log([success], "kept")
    assert tracker.log([failed("kept", trial="kept")], "kept") == 0
    assert tracker.load("kept") == [success]


def test_a_recomputed_result_replaces_the_older_one(tracker: Tracker):
    first = record("recomputed", trial="recomputed")
    again = dataclasses.replace(first, cost={"synthesis_seconds": 61.0})
    tracker.log([first], "recomputed")
    assert tracker.log([again], "recomputed") == 1
    assert tracker.load("recomputed") == [again]


def test_a_run_torn_by_a_killed_driver_counts_as_not_logged(tracker: Tracker):
    torn = record("torn", trial="torn")
    tracker.log([torn], "torn")
    connection = sqlite3.connect(tracker.uri.removeprefix("sqlite:///"))
    run = next(iter(runs_of(tracker, "torn")))
    connection.execute("delete from tags where run_uuid = ? and key = 'content'", (run,))
    connection.commit()
    connection.close()
    assert tracker.load("torn") == []
    assert tracker.log([torn], "torn") == 1
    assert tracker.load("torn") == [torn]


def test_an_altered_run_is_noticed(tracker: Tracker):
    tracker.log([record("altered", trial="altered")], "altered")
    connection = sqlite3.connect(tracker.uri.removeprefix("sqlite:///"))
    run = next(iter(runs_of(tracker, "altered")))
    connection.execute(
        "update tags set value = replace(value, '40.0', '99.0') where run_uuid = ? and key like 'record.%'",
        (run,),
    )
    connection.commit()
    connection.close()
    with pytest.raises(TrackingError, match=f"run {run} in .* was altered"):
        tracker.load("altered")


def test_a_lost_database_is_refilled(tmp_path: Path, tracker: Tracker):
    records = [record("refill", seed=seed) for seed in range(3)]
    tracker.log(records, "refill")
    rebuilt = Tracker(local_uri(tmp_path))
    rebuilt.log(records, "refill")
    assert rebuilt.load("refill") == tracker.load("refill")


def test_long_texts_and_large_bitmaps_fit(tracker: Tracker):
    drawn = random.Random(0)
    large = record(
        "large",
        [drawn.random() < 0.7 for _ in range(50_000)],
        trial="large",
        status="failed",
        reason="x" * 20_000,
        settings={"synthesizer": {"text": "y" * 9_000, **{f"field_{i}": i for i in range(150)}}},
    )
    tracker.log([large], "large")
    assert tracker.load("large") == [large]
    (tags,) = runs_of(tracker, "large").values()
    assert max(map(len, tags.values())) <= 5000


def test_scores_per_image_come_back_whole(tracker: Tracker):
    drawn = random.Random(0)
    scored = detection("scored", [drawn.random() for _ in range(5_000)])
    tracker.log([scored], "scored")
    assert tracker.load("scored") == [scored]
    (tags,) = runs_of(tracker, scored.trial).values()
    assert max(map(len, tags.values())) <= 5000


def test_odd_metrics_are_kept_in_the_record(tracker: Tracker):
    odd = record(
        "odd",
        trial="odd",
        metrics={"top1": 10.0, "kl": math.nan, "top1@best epoch": 11.0, "ratio": math.inf},
        gradient_shares={"one_hot": 0.9},
    )
    tracker.log([odd], "odd")
    (restored,) = tracker.load("odd")
    assert restored.metrics["ratio"] == math.inf
    assert math.isnan(restored.metrics["kl"])
    (run,) = runs_of(tracker, "odd")
    shown = column(tracker, f"select key, value from latest_metrics where run_uuid = '{run}'")
    assert shown["top1"] == shown["cost/synthesis_seconds"] - 50 == 10.0
    assert shown["top1_best epoch"] == 11.0
    assert shown["gradient_share/one_hot"] == 0.9
    assert "ratio" not in shown


def test_settings_and_status_are_visible_in_mlflow(tracker: Tracker):
    tracker.log([failed("visible", trial="visible", seed=7)], "visible")
    (run,) = runs_of(tracker, "visible")
    params = column(tracker, f"select key, value from params where run_uuid = '{run}'")
    assert params["seed"] == "7"
    assert params["visible.iterations"] == "300"
    assert column(tracker, f"select run_uuid, status from runs where run_uuid = '{run}'") == {run: "FAILED"}
    assert runs_of(tracker, "visible")[run]["reason"] == "the loss is not finite"


def test_a_run_says_when_it_was_how_it_did_and_what_makes_it_again(tracker: Tracker):
    """Its duration is what its stages took; the command is that of every suite that lists it."""
    one = record("maskaq", trial="told", track="controlled", notes=("a batch was drawn again",))
    tracker.log([one], "mine")
    tracker.log([one], "other: one")
    (run,) = runs_of(tracker, "told")
    own = f"where run_uuid = '{run}'"
    ((name, times),) = column(tracker, f"select name, start_time || ' ' || end_time from runs {own}").items()
    assert name == "maskaq psaq_ptq deit_tiny w4a4 seed 0"
    start, end = map(int, str(times).split())
    assert (end - start, end) == (65_000, 1_795_428_000_000)
    described = runs_of(tracker, "told")[run]["mlflow.note.content"]
    assert described.startswith("**maskaq** (psaq_ptq), deit_tiny, w4a4, seed 0. top1 70.00 on 10 images.")
    narrowed = "--methods maskaq --engine psaq_ptq --backbones deit_tiny --bits w4a4 --seeds 0 --budget fast"
    assert f"harness run --suite mine {narrowed}" in described
    assert "- a batch was drawn again" in described


def test_a_leaderboard_is_a_run_with_its_files_written_when_it_changed(tracker: Tracker, tmp_path: Path):
    from mlflow import MlflowClient

    one = record("maskaq", trial="on a board")
    board = leaderboard([one])
    shown = shown_board("boards", board, [one])
    assert tracker.log_board(shown)
    assert not tracker.log_board(shown)
    (run,) = column(tracker, "select run_uuid, value from tags where key = 'board' and value = 'boards'")
    ((name, times),) = column(
        tracker, f"select name, start_time || ' ' || end_time from runs where run_uuid = '{run}'"
    ).items()
    assert (name, times) == ("leaderboard boards", "1795427935000 1795428000000")
    client = MlflowClient(tracking_uri=tracker.uri)

    def read(name: str) -> str:
        return Path(client.download_artifacts(run, name, str(tmp_path))).read_text()

    assert read("leaderboard.md") == render(board, "md")
    assert read("leaderboard.csv") == render(board, "csv")
    table = json.loads(read("leaderboard.json"))
    (row,) = table["data"]
    assert dict(zip(table["columns"], row, strict=True))["method"] == "maskaq"
    assert (
        "maskaq"
        in column(tracker, f"select key, value from tags where run_uuid = '{run}'")["mlflow.note.content"]
    )
    more = [one, record("psaq_vit", trial="on a board too")]
    assert tracker.log_board(shown_board("boards", leaderboard(more), more))
    assert tracker.load("boards") == []  # it is no trial


def test_nothing_is_written_to_the_working_folder(tmp_path: Path, tracker: Tracker, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracker.log([record("elsewhere")], "elsewhere")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_database_is_made_absolute(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Tracker("sqlite:///results.db").uri == f"sqlite:///{tmp_path}/results.db"


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", ""])
def test_other_addresses_are_refused(uri: str):
    with pytest.raises(TrackingError, match="no tracking address: give sqlite:///FILE or http"):
        Tracker(uri)


def test_a_corrupt_database_says_so(tmp_path: Path):
    (tmp_path / "mlflow.db").write_bytes(b"this is no database, " * 100)
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be used .* move it away"):
        Tracker(local_uri(tmp_path)).log([record()], "corrupt")


def test_without_mlflow_nothing_is_lost_and_one_sentence_says_so(tmp_path: Path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    tracker = Tracker(local_uri(tmp_path / "mlflow.db"))
    with pytest.raises(TrackingError, match="nothing was tracked, since mlflow is not installed"):
        tracker.log([record()], "suite")


def test_an_unreachable_server_says_so(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(TrackingError, match=f"server at {address} cannot be used .*--tracking-uri"):
            Tracker(address).load("suite")


def test_records_without_results_are_equal_after_json():
    failure = failed()
    assert Record.from_json(failure.to_json()) == failure


@pytest.mark.slow
def test_processes_that_create_one_database_at_once_do_not_break_it(tmp_path: Path):
    code = (
        "import sys; from results.tracking import Tracker; from tests.results.fakes import record; "
        "Tracker(sys.argv[1]).log([record(seed=int(sys.argv[2]))], 'together')"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, local_uri(tmp_path), str(seed)]) for seed in range(3)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    assert {r.seed for r in Tracker(local_uri(tmp_path)).load("together")} == {0, 1, 2}


@pytest.mark.slow
def test_a_database_locked_by_another_program_says_so(tmp_path: Path):
    tracker = Tracker(local_uri(tmp_path))
    tracker.log([record()], "locked")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("begin exclusive")
        with pytest.raises(TrackingError, match=r"mlflow\.db is in use elsewhere .*: try again later"):
            tracker.load("locked")


@pytest.fixture
def searches(monkeypatch) -> list[str]:
    """The searches that MLflow is asked for."""
    from mlflow import MlflowClient

    asked: list[str] = []
    search = MlflowClient.search_runs

    def counted(client, experiments, filter_string="", **how):
        asked.append(filter_string)
        return search(client, experiments, filter_string, **how)

    monkeypatch.setattr(MlflowClient, "search_runs", counted)
    return asked


@pytest.mark.parametrize(("count", "asked"), [(2, 2), (25, 1)])
def test_what_a_server_holds_is_asked_for_in_one_search_of_all_or_few_of_one(
    tracker: Tracker, searches, monkeypatch, count, asked
):
    records = [record(f"served_{count}", seed=seed) for seed in range(count)]
    tracker.log(records[1:], "before")
    tracker.reach()
    monkeypatch.setattr(tracking, "_opened", lambda uri, database: (tracker._client, tracker._experiment))
    server = Tracker("http://127.0.0.1:9")
    assert server.log(records, f"served {count}") == 1
    assert len(searches) == asked
    assert sorted(r.seed for r in server.load(f"served {count}")) == list(range(count))


def test_a_database_is_read_and_written_without_mlflow(tracker: Tracker, searches):
    records = [record("unchanged", seed=seed) for seed in range(3)]
    tracker.log(records, "unchanged")
    assert searches == []
    code = (
        "import sys; from results.tracking import Tracker; from tests.results.fakes import record; "
        "records = [record('unchanged', seed=seed) for seed in range(4)]; tracker = Tracker(sys.argv[1]); "
        "assert tracker.log(records, 'unchanged') == 1 and len(tracker.load('unchanged')) == 4; "
        "assert 'mlflow' not in sys.modules and 'sqlalchemy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tracker.uri], check=True)


def test_one_call_may_hold_a_trial_twice(tracker: Tracker):
    one = record("doubled", trial="doubled")
    again = dataclasses.replace(one, cost={"synthesis_seconds": 61.0})
    assert tracker.log([one, one, again], "doubled") == 2
    assert tracker.load("doubled") == [again]
