"""Stores that are damaged or read-only: reading shows what is whole, running makes the rest anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import UsageError
from harness.store import Store, open_store
from results.database import local_uri
from results.tracking import Tracker
from tests.registry_guard import registry_as_it_was
from tests.surroundings import forked, needs_mounts, read_only

PLUGIN = Path(__file__).parents[1] / "planted_methods.py"
SUITE = """\
description: planted
task: digits
backbones: [digits_vit]
bits: [w8a8]
methods: [planted_blank]
budget: smoke
"""


def invoke(verb: str, folder: Path, *more: str):
    arguments = [verb, "--suite", str(folder / "planted.yaml"), "--plugin", str(PLUGIN)]
    arguments += ["--store", str(folder / "store")]
    if verb == "run":
        arguments += ["--scheduler", "inline", "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, *more])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a suite and the store of its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "planted.yaml").write_text(SUITE)
    with registry_as_it_was():
        assert invoke("run", folder).exit_code == 0
    return folder


@pytest.fixture
def folder(tmp_path, finished) -> Path:
    return Path(shutil.copytree(finished, tmp_path, dirs_exist_ok=True))


def rows(folder: Path) -> dict[str, dict]:
    shown = invoke("leaderboard", folder, "--format", "json", "--no-published")
    return {row["method"]: row for row in json.loads(shown.stdout)}


def key_of(store: Store, kind: str) -> str:
    """Key of the planted method's stage of that kind."""
    found = [
        path.name
        for path in (store.root / "artifacts").iterdir()
        if store.meta(path.name)["kind"] == kind and "planted_blank" in store.meta(path.name)["label"]
    ]
    (key,) = found
    return key


def cut(place: Path, other: Path) -> None:
    data = place / "data.safetensors"
    data.write_bytes(data.read_bytes()[:-3])


def flipped(place: Path, other: Path) -> None:
    meta = place / "meta.json"
    meta.write_text(meta.read_text().replace('"facts"', '"fakts"', 1))


def emptied(place: Path, other: Path) -> None:
    for file in place.iterdir():
        file.unlink()


def foreign(place: Path, other: Path) -> None:
    shutil.copytree(other, place, dirs_exist_ok=True)


OTHER = {"evaluate": "quantize", "quantize": "synthesize", "synthesize": "evaluate"}
"""Kind of stage -> the kind whose artifact is put in its place."""


@pytest.mark.parametrize("damage", [cut, flipped, emptied, foreign])
def test_a_damaged_evaluation_costs_its_row_until_it_is_run_again(folder, damage):
    store = open_store(folder / "store")
    key = key_of(store, "evaluate")
    damage(store.place(key), store.place(key_of(store, OTHER["evaluate"])))
    shown = rows(folder)
    assert {name: row["status"] for name, row in shown.items() if name != "planted_blank"} == {
        "fp32": "ok",
        "gaussian_noise": "ok",
        "real_data": "ok",
    }
    row = shown["planted_blank"]
    assert (row["status"], row["mean"]) == ("failed", None)
    assert row["reason"].startswith(f"damaged: {store.place(key)}")
    assert row["reason"].endswith("; delete it and run again")
    again = invoke("run", folder)
    assert again.exit_code == 0
    assert f"artifact {key} (" in again.stdout
    assert "is damaged and is made anew" in again.stdout
    assert "1 stages run" in again.stdout
    assert rows(folder)["planted_blank"]["status"] == "ok"


@pytest.mark.parametrize("damage", [cut, flipped, emptied, foreign])
@pytest.mark.parametrize("kind", ["quantize", "synthesize"])
def test_a_damaged_parent_is_made_anew_when_it_is_needed(folder, kind, damage):
    store = open_store(folder / "store")
    keys = {name: key_of(store, name) for name in OTHER}
    damage(store.place(keys[kind]), store.place(keys[OTHER[kind]]))
    assert rows(folder)["planted_blank"]["status"] == "ok"
    assert "0 stages run" in invoke("run", folder).stdout
    for child in ("evaluate", "quantize")[: 1 if kind == "quantize" else 2]:
        shutil.rmtree(store.place(keys[child]))
    again = invoke("run", folder)
    assert again.exit_code == 0
    assert f"artifact {keys[kind]} (" in again.stdout
    assert again.stdout.count("is damaged and is made anew") == 1
    assert rows(folder)["planted_blank"]["status"] == "ok"


def test_damaged_timings_stop_nothing(folder):
    (folder / "store" / "timings.json").write_text("[1, 2]")
    assert invoke("plan", folder).exit_code == 0
    store = open_store(folder / "store")
    shutil.rmtree(store.place(key_of(store, "evaluate")))
    assert invoke("run", folder).exit_code == 0
    assert store.timings()


def test_a_store_that_cannot_be_written_is_read(folder):
    needs_mounts()

    def child() -> dict[str, str]:
        read_only(folder / "store")
        done = {verb: invoke(verb, folder) for verb in ("run", "leaderboard", "plan")}
        done["csv"] = invoke("leaderboard", folder, "-f", "csv")
        assert {verb: each.exit_code for verb, each in done.items()} == dict.fromkeys(done, 0)
        return {verb: each.stdout for verb, each in done.items()}

    shown = forked(child)
    assert "planted_blank + planted_copy" in shown["run"]
    assert "0 stages run" in shown["run"]
    store = folder / "store"
    assert f"Read: {store}; nothing could be recorded in MLflow" in shown["run"]
    assert "planted_blank + planted_copy" in shown["leaderboard"]
    assert "planted_blank" in shown["csv"]
    assert "to run" in shown["plan"]


def test_work_in_a_store_that_cannot_be_written_is_refused_before_it_begins(folder):
    needs_mounts()
    store = open_store(folder / "store")
    shutil.rmtree(store.place(key_of(store, "evaluate")))

    def child() -> str:
        read_only(folder / "store")
        with pytest.raises(UsageError) as refused:
            invoke("run", folder)
        return str(refused.value)

    assert forked(child) == (
        f"the store {store.root} cannot be written (Read-only file system): give another --store"
    )


def test_the_interface_of_a_store_that_cannot_be_written_shows_a_copy(folder, monkeypatch):
    needs_mounts()
    served: list[Path] = []

    def serve(database: Path, port: int) -> int:
        served.append(database)
        assert Tracker(f"sqlite:///{database}").load("planted")
        return 0

    monkeypatch.setattr("harness.cli.ui._served", serve)
    monkeypatch.setattr("harness.cli.ui._refuse_busy", lambda _: None)

    def child() -> tuple[str, str]:
        read_only(folder / "store")
        done = CliRunner().invoke(app, ["ui", "--store", str(folder / "store")])
        assert done.exit_code == 0, done.exception
        return done.stdout, str(served[0])

    said, database = forked(child)
    assert f"MLflow on {folder}/store/mlflow.db (a copy, {database}, since the store" in said
    assert not Path(database).exists()


def test_the_interface_names_a_broken_database(folder, monkeypatch):
    monkeypatch.setattr("harness.cli.ui._refuse_busy", lambda _: None)
    database = folder / "store" / "mlflow.db"
    database.write_bytes(database.read_bytes()[:20_000])
    done = CliRunner().invoke(app, ["ui", "--store", str(folder / "store")])
    assert isinstance(done.exception, UsageError)
    assert f"the tracking database {database} cannot be used (it is damaged)" in str(done.exception)


def test_a_broken_database_is_refilled_and_said(folder):
    database = folder / "store" / "mlflow.db"
    database.write_bytes(database.read_bytes()[:20_000])
    done = invoke("leaderboard", folder, "-f", "json")
    assert "it is kept as mlflow.broken-1.db" in done.stderr
    assert {row["status"] for row in json.loads(done.stdout)} == {"ok"}
    assert Tracker(local_uri(folder / "store")).load("planted")
