"""Planted forgeries of a bundle are caught, or named as what cannot be verified; honest bundles pass."""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from backbones import sha256_of_weights
from harness.execution.run import run_session
from harness.execution.schedulers.inline import InlineScheduler
from harness.execution.verification import judged, made_again
from harness.planning.plan import stored_plan, trials_of
from harness.planning.request import Machine, Places, Request, Rows
from harness.planning.session import Session, open_session
from harness.reporting.bundles import Bundle, read_bundle, write_bundle
from harness.reporting.consistency import Known, claimed_trial, findings, not_told
from harness.reporting.suite_runs import suite_records
from harness.reporting.verdicts import DIFFERENT, NOISE, SAME
from harness.stages.base import RunContext
from results.record import Record
from results.statistics import pack_outcomes, unpack_outcomes

pytestmark = pytest.mark.slow
SILENT = Console(file=io.StringIO())
Edit = Callable[[list[dict[str, Any]]], None]


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    """A finished run of two engines on the shipped digits, with one thread."""
    rows = Rows(
        suite="digits_w4a4", methods=("psaq_vit",), backbones=("digits_vit",), seeds=("0", "1"),
        engines=("psaq_ptq", "repq_ptq"), budget="smoke",
    )  # fmt: skip
    places = Places(store=str(tmp_path_factory.mktemp("store")))
    machine = Machine(scheduler="inline", device="cpu", cpus_per_trial=1)
    opened = open_session(Request(rows, places, machine))
    run_session(opened, InlineScheduler(), SILENT)
    return opened


@pytest.fixture(scope="module")
def known(session) -> Known:
    """This machine, with another number of threads."""
    weights = {name: sha256_of_weights(name, path) for name, path in session.context.weights.items()}
    return Known(dataclasses.replace(session.context, threads=2), weights)


@pytest.fixture(scope="module")
def honest(session, tmp_path_factory) -> Bundle:
    path = tmp_path_factory.mktemp("bundle") / "a.zip"
    trials = {trial.trial: trial for trial in trials_of(stored_plan(session.plan))}
    write_bundle(path, [suite_records(session.store, "digits_w4a4")], trials, session.store)
    return read_bundle(path)


@pytest.fixture(scope="module")
def psaq(honest) -> Record:
    return next(r for r in honest.records if (r.method, r.engine, r.seed) == ("psaq_vit", "psaq_ptq", 0))


@pytest.fixture(scope="module")
def ours(psaq, known) -> Record:
    """That trial, made again with another number of threads."""
    return made_again(psaq, known, SILENT)


def forged(bundle: Bundle, edit: Edit) -> Bundle:
    """The bundle with edited records, as if sealed anew."""
    suite = bundle.suites[0]
    said = [copy.deepcopy(record.to_json()) for record in suite.found.records]
    edit(said)
    found = dataclasses.replace(suite.found, records=tuple(Record.from_json(one) for one in said))
    return dataclasses.replace(bundle, suites=(dataclasses.replace(suite, found=found),))


def of(method: str = "psaq_vit", engine: str = "psaq_ptq", seed: int = 0):
    return lambda said: next(
        one
        for one in said
        if one["method"] == method and one["seed"] == seed and one["engine"] in (engine, "none")
    )


def change(path: str, value: Any, **which: Any) -> Edit:
    """Sets a field of one record, such as `metrics.top1`; a callable gets the old value."""

    def edit(said: list[dict[str, Any]]) -> None:
        place = of(**which)(said)
        *outer, last = path.split(".")
        for name in outer:
            place = place[name]
        place[last] = value(place[last]) if callable(value) else value

    return edit


def both(*edits: Edit) -> Edit:
    def edit(said: list[dict[str, Any]]) -> None:
        for one in edits:
            one(said)

    return edit


def flip(said: list[dict[str, Any]]) -> None:
    one = of()(said)
    one["outcomes"]["top1"] = pack_outcomes(~unpack_outcomes(one["outcomes"]["top1"], one["images"]))


def swap_seeds(said: list[dict[str, Any]]) -> None:
    first, second = of(seed=0)(said), of(seed=1)(said)
    first["seed"], second["seed"] = 1, 0


def copy_seed(said: list[dict[str, Any]]) -> None:
    of(seed=1)(said).update({k: v for k, v in copy.deepcopy(of(seed=0)(said)).items() if k != "seed"})


KEY = "its key does not follow from its method"
FORGERIES: dict[str, tuple[Edit, str]] = {
    "edited metric": (change("metrics.top1", lambda v: v + 5), "top1 is "),
    "edited agreement": (change("metrics.agreement", 99.0), "agreement is 99.0000, its outcomes give"),
    "flipped bits": (flip, "its outcomes give"),
    "best epoch as the last": (
        both(change("metrics", lambda v: {**v, "oracle_top1": 97.0}), change("metrics.top1", 97.0)),
        "top1 is 97.0000, its outcomes give",
    ),
    "edited full precision": (change("metrics.top1", 91.0, method="fp32"), "top1 is 91.0000"),
    "lowered full precision": (change("protocol.full_precision", 60.0), "says full precision has 60.0"),
    "no outcomes": (change("outcomes", {}), "no outcomes of top1, which ranks it"),
    "foreign weights": (change("weights_sha256", "f" * 64), "weights of digits_vit are others"),
    "other split": (change("split", "tune"), "scored on the split tune, not report"),
    "other images": (
        both(change("samples_digest", "0" * 64), change("protocol.evaluated_samples", "0" * 16)),
        "other images than the digits data here",
    ),
    "other images, told in half": (change("samples_digest", "0" * 64), "names other images than its digest"),
    "renamed method": (both(change("synthesizer", "smi"), change("method", "smi")), "make no trial"),
    "noise told as a method": (
        both(
            change("synthesizer", "psaq_vit", method="gaussian_noise"),
            change("method", "psaq_vit", method="gaussian_noise"),
        ),
        "its settings are not all of those of psaq_vit",
    ),
    "changed engine": (change("engine", "repq_ptq"), "make no trial"),
    "changed bits": (change("bits", "w3a3"), KEY),
    "swapped seeds": (swap_seeds, KEY),
    "a seed copied": (copy_seed, "several trials have this key"),
    "edited settings": (change("settings.synthesizer.iterations", 4000), KEY),
    "another budget": (change("budget", "paper"), "settings of the budget smoke, not paper"),
    "hidden real images": (change("data_use", "none", method="real_data"), "sees real images, not none"),
    "another crop": (change("protocol.transform.crop_pct", 0.5), "its transform is not that of digits_vit"),
    "another quantizer": (change("protocol.engine", {"scope": "whole"}), "its protocol is not that of"),
    "cheaper evaluation": (change("cost.evaluation_seconds", 0.001), "images_per_second is not"),
    "cheaper synthesis": (change("cost.synthesis_seconds", 0.001), "the same ones"),
}


def test_an_honest_bundle_has_neither_faults_nor_doubts(honest, known):
    assert {(f.faults, f.doubts) for f in findings(honest, known).values()} == {((), ())}
    assert len(honest.records) == 13
    assert not_told(honest.suites[0]) == ""


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_caught_without_a_repetition(honest, known, name):
    edit, said = FORGERIES[name]
    faults = [fault for found in findings(forged(honest, edit), known).values() for fault in found.faults]
    assert any(said in fault for fault in faults), faults


def test_a_dropped_row_is_named(honest):
    dropped = forged(honest, lambda said: said.remove(of(seed=1)(said)))
    assert not_told(dropped.suites[0]) == (
        "digits_w4a4: neither in the bundle nor told as left out: digits_vit w4a4 psaq_vit psaq_ptq 1"
    )


def test_other_weights_and_data_than_those_here_cannot_be_verified(honest):
    nothing = Known(RunContext(honest.path.parent), {})
    doubts = {doubt for found in findings(honest, nothing).values() for doubt in found.doubts}
    assert doubts == {"weights of digits_vit not found: give --weights"}


def test_an_honest_trial_is_the_same_with_other_threads(psaq, ours):
    assert judged(psaq, ours).verdict in (SAME, NOISE)


def with_flips(record: Record, count: int) -> Record:
    """A consistent lie: so many wrong images told as right in every outcome, with all metrics to match."""
    outcomes, metrics = {}, dict(record.metrics)
    for name, packed in record.outcomes.items():
        right = unpack_outcomes(packed, record.images)
        right[np.flatnonzero(~right)[:count]] = True
        outcomes[name], metrics[name] = pack_outcomes(right), 100 * float(right.mean())
    return dataclasses.replace(record, outcomes=outcomes, metrics=metrics)


def test_outcomes_forged_with_their_metrics_are_different_when_made_again(psaq, ours):
    verdict = judged(with_flips(psaq, 60), ours)
    assert verdict.verdict == DIFFERENT
    assert f"here {ours.metrics['top1']:.2f}, p = " in verdict.why


def test_a_lie_within_the_noise_is_never_the_same(psaq, ours):
    assert judged(with_flips(psaq, 2), ours).verdict == NOISE


def test_a_seed_with_its_key_made_anew_is_not_the_same_when_made_again(psaq, ours, known):
    lied = dataclasses.replace(psaq, seed=1)
    assert claimed_trial(lied, known).trial != psaq.trial
    best = with_flips(dataclasses.replace(lied, trial=claimed_trial(lied, known).trial), 60)
    assert judged(best, ours).verdict == DIFFERENT
