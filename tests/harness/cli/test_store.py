"""`harness store`: what takes room, what is damaged, and what goes and what stays when room is made."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from harness.stages.kinds import kind_names
from harness.store import Store, open_store
from harness.store.uses import StoredPlan

DAY = 24 * 3600
NEEDS = {"set": [], "student": ["set"], "score": ["student", "reference"], "reference": []}
KINDS = {"set": "synthesize", "student": "quantize", "score": "evaluate", "reference": "evaluate"}


@pytest.fixture
def store(tmp_path) -> Store:
    """A store where the harness looks for it, in which the suite `mine` has run to its end."""
    store = open_store(tmp_path / "dfq-store").create()
    for key in NEEDS:
        put(store, key)
    store.write_plan(StoredPlan("mine", ["reference", "score"], NEEDS))
    return store


def put(store: Store, key: str, kind: str = "", days: float = 0) -> None:
    store.write(key, {"a": torch.zeros(250)}, {"kind": kind or KINDS[key], "label": "fdd (lsq_qat) x w4a4"})
    if days:
        made_ago(store.place(key), days)


def made_ago(path: Path, days: float) -> None:
    os.utime(path, 2 * (time.time() - days * DAY,))


def lines_of(out: str) -> list[str]:
    return [" ".join(line.split()) for line in out.splitlines()]


def test_the_table_counts_by_suite_stage_and_method_in_eighty_columns(harness, store, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    put(store, "other", "synthesize", days=3)
    status, out, err = harness("store")
    assert (status, err) == (0, "")
    sizes = {key: store.size(key) for key in store.stored_keys()}
    assert (
        f"mine evaluate fdd 2 {(sizes['score'] + sizes['reference']) / 1000:.1f} kB 0 min 0 min"
        in lines_of(out)
    )
    assert f"- synthesize fdd 1 {sizes['other'] / 1000:.1f} kB 3 d 3 d" in lines_of(out)
    assert lines_of(out)[-1].startswith(f"5 artifacts of {sum(sizes.values()) / 1000:.1f} kB; records, ")


def test_verify_names_every_damaged_artifact(harness, store):
    assert harness("store", "verify")[:2] == (0, "4 of 4 artifacts are whole\n")
    torn = store.place("student") / "data.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1] + b"x")
    (store.place("set") / "meta.json").unlink()
    status, out, _ = harness("store", "verify")
    assert status == 1
    assert f"damaged: {torn}" in out
    assert f"damaged: {store.place('set') / 'meta.json'}" in out
    assert out.endswith("2 of 4 artifacts are whole\n")
    status, out, _ = harness("store", "prune", "--kind", "damaged")
    assert (status, store.stored_keys()) == (0, ["reference", "score", "student"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ["nothing to prune: give --older-than AGE, --suite NAMES or --kind NAMES"]),
        (("--dry-run",), ["nothing to prune: give --older-than AGE, --suite NAMES or --kind NAMES"]),
        (
            ("--older-than", "30", "--suite", "yours", "--kind", "sets"),
            [
                "--older-than 30: a number of h, d or w, such as 30d",
                "--suite yours: one of mine",
                "--kind sets: one of {kinds}",
            ],
        ),
    ],
)
def test_wrong_wishes_remove_nothing_and_each_has_its_line(harness, store, words, said):
    status, out, err = harness("store", "prune", *words)
    assert (status, out) == (2, "")
    kinds = ", ".join(kind_names())  # a plug-in's too
    assert err.splitlines() == [f"harness: {line.format(kinds=kinds)}" for line in said]
    assert len(store.stored_keys()) == 4


@pytest.mark.parametrize("verb", [("store",), ("store", "verify"), ("store", "prune", "--kind", "train")])
def test_without_a_store_each_verb_says_so(harness, tmp_path, verb):
    status, out, err = harness(*verb)
    assert (status, out) == (2, "")
    assert err == f"harness: no store at {tmp_path / 'dfq-store'}: give --store DIR, or run a suite first\n"
    assert not (tmp_path / "dfq-store").exists()


def test_a_store_named_ahead_of_the_verb_is_not_passed_over(harness, store):
    status, _, err = harness("store", "--store", "elsewhere", "prune", "--kind", "evaluate")
    assert (status, err) == (2, "harness: write --store and --config behind `harness store prune`\n")
    assert len(store.stored_keys()) == 4


def test_what_is_asked_for_goes_and_the_room_is_told(harness, store):
    size = store.size("score") + store.size("reference")
    told = f"{size / 1000:.1f} kB in 2 artifacts"
    status, out, _ = harness("store", "prune", "--kind", "evaluate", "--dry-run")
    assert (status, lines_of(out)[-1]) == (0, f"{told} would be free")
    assert len(store.stored_keys()) == 4
    status, out, _ = harness("store", "prune", "--kind", "evaluate")
    assert (status, lines_of(out)[-1]) == (0, f"{told} are free now")
    assert store.stored_keys() == ["set", "student"]


def test_all_that_is_given_has_to_fit(harness, store):
    made_ago(store.place("set"), 31)
    made_ago(store.place("student"), 29)
    put(store, "loose", "synthesize", days=31)
    harness("store", "prune", "--older-than", "30d", "--kind", "synthesize", "--suite", "mine")
    assert store.stored_keys() == ["loose", "reference", "score", "student"]
    harness("store", "prune", "--older-than", "4w")
    assert store.stored_keys() == ["reference", "score"]


def test_what_another_suite_shares_does_not_go_with_a_suite(harness, store):
    store.write_plan(StoredPlan("yours", ["reference"], {"reference": []}))
    harness("store", "prune", "--suite", "mine")
    assert store.stored_keys() == ["reference"]


def test_what_an_unfinished_run_would_make_again_stays(harness, store):
    needs = {"yours": ["student2"], "student2": ["set"], "reference": [], "set": []}
    store.write_plan(StoredPlan("yours", ["reference", "yours"], needs))
    status, out, _ = harness("store", "prune", "--older-than", "0h")
    assert (status, store.stored_keys()) == (0, ["reference", "set"])
    assert "2 artifacts of " in out
    assert out.endswith("stay: unfinished runs of yours need them\n")
    put(store, "yours", "evaluate")
    harness("store", "prune", "--kind", "synthesize")
    assert store.stored_keys() == ["reference", "yours"]


def test_a_run_that_nobody_goes_on_with_for_as_long_counts_as_given_up(harness, store):
    store.write_plan(StoredPlan("yours", ["missing"], {"missing": ["set"]}))
    for key in store.stored_keys():
        made_ago(store.place(key), 40)
    harness("store", "prune", "--older-than", "30d")
    assert store.stored_keys() == ["set"]
    for plan in (store.root / "plans").iterdir():
        made_ago(plan, 35)
    harness("store", "prune", "--kind", "synthesize")
    assert store.stored_keys() == ["set"]
    harness("store", "prune", "--older-than", "30d")
    assert store.stored_keys() == []


def test_nothing_goes_while_somebody_works_with_the_store(harness, store):
    with store.in_use(), store.in_use():
        status, out, err = harness("store", "prune", "--kind", "synthesize")
        assert (status, out) == (2, "")
        assert err == f"harness: the store {store.root} is in use: prune it when nothing runs on it\n"
        assert harness("store", "prune", "--kind", "synthesize", "--dry-run")[0] == 0
        assert len(store.stored_keys()) == 4
    assert harness("store", "prune", "--kind", "synthesize")[0] == 0
    assert "set" not in store.stored_keys()
