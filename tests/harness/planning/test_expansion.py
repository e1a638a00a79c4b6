"""The plan of a suite: which stages are shared, what enters a key, and what has to run."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from backbones import SPECS, find_weights, sha256_of_file
from harness.planning import stage_builder
from harness.planning.expansion import build_plan
from harness.planning.plan import Plan
from harness.stages.base import RunContext
from harness.stages.facts import write_artifact
from harness.store import open_store
from harness.suites.changes import with_assignments
from harness.suites.draft import Draft
from harness.suites.suite import Suite
from methods.bits import Bits
from methods.settings import configure
from tests.harness.stages.test_facts import SCORE, STUDENT

SUITE = Suite(
    name="test",
    task="digits",
    backbones=("digits_vit",),
    bits=(Bits(4, 4), Bits(4, 8)),
    methods=("psaq_vit", "maskaq"),
    seeds=(0, 1),
    budget="smoke",
)


def plan_of(suite: Suite = SUITE, folder="store", weights: str | None = None, **context) -> Plan:
    weights = weights or sha256_of_file(find_weights(SPECS["digits_vit"]))
    return build_plan(suite, RunContext(store=folder, **context), {"digits_vit": weights})


def keys(plan: Plan, kind: str) -> set[str]:
    return {key for key, stage in plan.stages.items() if stage.kind == kind}


def test_anchors_come_with_every_engine_of_the_suite():
    plan = plan_of()
    rows = {(t.method, t.engine) for t in plan.trials}
    assert rows == {
        ("fp32", "none"),
        ("gaussian_noise", "psaq_ptq"),
        ("gaussian_noise", "lsq_qat"),
        ("real_data", "psaq_ptq"),
        ("real_data", "lsq_qat"),
        ("psaq_vit", "psaq_ptq"),
        ("maskaq", "lsq_qat"),
    }
    assert len(plan.trials) == 1 + 6 * 2 * 2  # six quantized rows, two bit-widths, two seeds


def test_bit_widths_share_what_is_made_from_the_teacher_alone():
    plan = plan_of()
    psaq = [t for t in plan.trials if t.method == "psaq_vit"]
    assert len({t.synthesis for t in psaq}) == 2  # one per seed, for both bit-widths
    assert len({t.quantization for t in psaq}) == 4
    maskaq = [t for t in plan.trials if t.method == "maskaq"]
    assert len({t.synthesis for t in maskaq}) == 2
    assert len({t.quantization for t in maskaq}) == 4


def test_engines_share_synthesis():
    suite = dataclasses.replace(SUITE, engines=("psaq_ptq", "lsq_qat"), methods=("psaq_vit",), seeds=(0,))
    psaq = [t for t in plan_of(suite).trials if t.method == "psaq_vit"]
    assert len(psaq) == 4
    assert len({t.synthesis for t in psaq}) == 1


def test_another_engine_than_the_papers_is_the_controlled_track():
    suite = dataclasses.replace(SUITE, engines=("lsq_qat",), seeds=(0,))
    tracks = {(t.method, t.track) for t in plan_of(suite).trials}
    assert ("psaq_vit", "controlled") in tracks
    assert ("maskaq", "published") in tracks


def test_anchors_get_as_many_images_as_their_rivals():
    suite = with_assignments(Draft(SUITE), ["maskaq.images=48", "psaq_vit.images=16"]).suite
    counts = {
        (t.method, t.engine): t.settings["synthesizer"]["images"]
        for t in plan_of(suite).trials
        if t.method in ("gaussian_noise", "real_data")
    }
    assert counts[("gaussian_noise", "lsq_qat")] == counts[("real_data", "lsq_qat")] == 48
    assert counts[("gaussian_noise", "psaq_ptq")] == counts[("real_data", "psaq_ptq")] == 16


def test_an_anchors_own_image_count_wins():
    suite = with_assignments(Draft(SUITE), ["maskaq.images=48", "real_data.images=7"]).suite
    assert {
        t.settings["synthesizer"]["images"] for t in plan_of(suite).trials if t.method == "real_data"
    } == {7}


@pytest.mark.parametrize(
    ("assignments", "notes"),
    [
        (["maskaq.images=48"], {}),
        (
            ["maskaq.images=100000"],
            {"real_data": "297 images beside methods that have 100000: the tuning split holds no more"},
        ),
        (
            ["maskaq.images=48", "gaussian_noise.images=7"],
            {"gaussian_noise": "7 images beside methods that have 48: the suite says so"},
        ),
    ],
)
def test_an_anchor_with_other_images_than_its_rivals_says_so(assignments, notes):
    suite = dataclasses.replace(SUITE, methods=("maskaq",), seeds=(0,), bits=(Bits(4, 4),))
    plan = plan_of(with_assignments(Draft(suite), assignments).suite)
    assert {t.method: t.notes[0] for t in plan.trials if t.notes} == notes


def test_places_and_devices_stay_out_of_the_keys():
    here = plan_of(folder="a", threads=1, device="cpu", batch_size=8)
    there = plan_of(folder="b", threads=2, device="cuda", batch_size=64)
    assert set(here.stages) == set(there.stages)


def test_weights_seeds_and_settings_enter_the_keys():
    base = plan_of()
    assert not set(base.stages) & set(plan_of(weights="0" * 64).stages)
    other_seed = plan_of(dataclasses.replace(SUITE, seeds=(7,)))
    assert keys(base, "synthesize").isdisjoint(keys(other_seed, "synthesize"))
    changed = plan_of(with_assignments(Draft(SUITE), ["psaq_vit.learning_rate=0.3"]).suite)
    assert len(keys(base, "synthesize") - keys(changed, "synthesize")) == 2  # both seeds of psaq_vit


def test_the_scope_enters_the_students_keys_and_protocols_but_not_the_images():
    base, scoped = plan_of(), plan_of(dataclasses.replace(SUITE, scope="heads_8bit"))
    assert keys(base, "synthesize") == keys(scoped, "synthesize")
    assert keys(base, "quantize").isdisjoint(keys(scoped, "quantize"))
    for plan, scope in ((base, "whole"), (scoped, "heads_8bit")):
        students = [stage for stage in plan.stages.values() if stage.kind == "quantize"]
        assert {stage.settings["scope"] for stage in students} == {scope}
        assert {t.protocol["engine"].get("scope") for t in plan.trials if t.engine != "none"} == {scope}


def test_what_is_computed_fast_is_another_answer_and_ranked_apart():
    base, fast = plan_of(), plan_of(dataclasses.replace(SUITE, precision="fast"))
    assert not set(base.stages) & set(fast.stages)
    assert {stage.settings["precision"] for stage in fast.stages.values()} == {"fast"}
    assert not any("precision" in stage.settings for stage in base.stages.values())
    assert {trial.protocol["precision"] for trial in fast.trials} == {"fast"}
    assert not any("precision" in trial.protocol for trial in base.trials)


def test_a_change_of_the_code_that_decides_changes_the_key(monkeypatch):
    base = plan_of()
    monkeypatch.setattr("harness.planning.stage_builder.code_digest", lambda *files: "another")
    assert not set(base.stages) & set(plan_of().stages)


def test_only_what_somebody_needs_is_missing(tmp_path):
    store = open_store(tmp_path).create()
    plan = plan_of(folder=tmp_path)
    assert len(plan.missing(store)) == len(plan.stages)
    for trial in plan.trials:
        write_artifact(store, trial.evaluation, {"outcomes.top1": torch.ones(1)}, SCORE)
    assert plan.missing(store) == []  # images and students may be deleted once scores are there
    victim = next(t for t in plan.trials if t.method == "psaq_vit")
    folder = store.root / "artifacts" / victim.evaluation
    (folder / "data.safetensors").write_bytes(b"torn")
    missing = [stage.key for stage in plan.missing(store)]
    assert missing == [victim.synthesis, victim.quantization, victim.evaluation]
    write_artifact(store, victim.quantization, {"a": torch.ones(1)}, STUDENT)
    assert [stage.key for stage in plan.missing(store)] == [victim.evaluation]


@pytest.mark.parametrize("field", ["protocol", "settings"])
def test_trials_say_how_they_are_run(field):
    for trial in plan_of().trials:
        value = getattr(trial, field)
        assert value if trial.engine != "none" or field == "protocol" else not value


def test_variants_are_further_rows_that_share_what_they_do_not_change():
    suite = dataclasses.replace(
        SUITE,
        seeds=(0,),
        bits=(Bits(4, 4),),
        variants={"psaq_vit": ({"learning_rate": 0.1}, {"psaq_ptq": {"batch_size": 7}})},
    )
    base, slower, other_engine = [t for t in plan_of(suite).trials if t.method == "psaq_vit"]
    assert slower.settings["synthesizer"]["learning_rate"] == 0.1
    assert slower.synthesis != base.synthesis
    assert other_engine.settings["engine"]["batch_size"] == 7
    assert other_engine.synthesis == base.synthesis
    assert len({t.evaluation for t in (base, slower, other_engine)}) == 3


def test_what_is_asked_of_settings_does_not_grow_with_the_trials(monkeypatch):
    asked = []

    def counted(Config, budget, overrides):
        asked.append(Config)
        return configure(Config, budget, overrides)

    monkeypatch.setattr(stage_builder, "configure", counted)
    plan_of()
    few = len(asked)
    plan_of(dataclasses.replace(SUITE, seeds=tuple(range(20)), bits=(Bits(3, 3), *SUITE.bits)))
    assert len(asked) == 2 * few
