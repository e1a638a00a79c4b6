"""Which stages make a student: where a training is cut, what is shared, and what enters no key."""

from __future__ import annotations

import dataclasses

import pytest

from harness.planning import making, stage_builder
from harness.planning.making import link_ends
from harness.planning.plan import Plan
from harness.planning.stage_builder import shards_of
from harness.suites.changes import with_assignments
from harness.suites.draft import Draft
from methods.maskaq import MaskaqConfig
from methods.psaq_vit_v2 import PsaqVitV2Config
from methods.registry import get_method
from methods.synthesis.generator_training import GeneratorConfig
from tests.harness.planning.test_expansion import SUITE, plan_of


def plan_with(*assignments: str) -> Plan:
    return plan_of(with_assignments(Draft(SUITE), list(assignments)).suite)


def kinds_of(plan: Plan, method: str) -> list[str]:
    trial = next(t for t in plan.trials if t.method == method)
    return [plan.stages[key].kind for key in trial.making]


def test_a_link_ends_at_every_refresh_and_where_it_has_shown_enough_images():
    assert link_ends(200, 10_000, ()) == (30, 60, 90, 120, 150, 180, 200)
    assert link_ends(200, 10_000, (50, 100)) == (30, 50, 80, 100, 130, 160, 190, 200)
    assert link_ends(20, 64, (10,)) == (10, 20)
    assert link_ends(3, 10**6, ()) == (1, 2, 3)
    assert link_ends(3, 0, ()) == (3,)


def test_a_row_of_maskaq_is_a_chain_of_sets_and_links():
    plan = plan_with("maskaq.refresh_every=2", "lsq_qat.epochs=5")
    assert kinds_of(plan, "maskaq") == [
        "synthesize",
        "train",
        "synthesize",
        "train",
        "synthesize",
        "quantize",
    ]
    trial = next(t for t in plan.trials if t.method == "maskaq")
    first, link, second, further, third, student = (plan.stages[key] for key in trial.making)
    assert (link.parents, link.settings["until"]) == ({"images": first.key}, 2)
    assert (second.parents, second.settings["epoch"]) == ({"images": first.key, "training": link.key}, 2)
    assert further.parents == {"images": second.key, "training": link.key}
    assert third.parents == {"images": second.key, "training": further.key}
    assert student.parents == {"images": third.key, "training": further.key}
    assert trial.images == third.key
    assert trial.training == (link.key, further.key, student.key)
    assert len({t.synthesis for t in plan.trials if t.method == "maskaq"}) == 2  # a seed each, no bit-width


@pytest.mark.parametrize(
    ("method", "assignments", "kinds"),
    [
        ("psaq_vit", [], ["synthesize", "quantize"]),
        ("maskaq", ["maskaq.student_in_first_set=true"], ["train", "synthesize", "quantize"]),
        ("maskaq", ["maskaq.alignment_weight=0"], ["synthesize", "train", "synthesize", "quantize"]),
        ("adadfq", [], ["synthesize", "quantize"]),
    ],
)
def test_what_follows_the_student_decides_the_chain(method, assignments, kinds):
    if method != "psaq_vit":
        assignments = [f"{method}.refresh_every=1", *assignments]
    suite = dataclasses.replace(SUITE, methods=(method,))
    suite = with_assignments(Draft(suite), [f"{method}.images=4", "lsq_qat.epochs=2", *assignments]).suite
    assert kinds_of(plan_of(suite), method) == kinds


def test_where_links_end_enters_no_key_of_what_comes_after(monkeypatch):
    assignments = ("maskaq.refresh_every=2", "lsq_qat.epochs=5")
    whole = plan_with(*assignments)
    monkeypatch.setattr(making, "IMAGES_PER_LINK", 1)
    cut = plan_with(*assignments)
    assert [t.trial for t in cut.trials] == [t.trial for t in whole.trials]
    assert set(whole.stages) < set(cut.stages)
    assert len(kinds_of(cut, "maskaq")) == 8
    assert kinds_of(cut, "gaussian_noise") == [
        "synthesize",
        "quantize",
    ]  # with psaq_ptq, which does not train
    trained = next(t for t in cut.trials if (t.method, t.engine) == ("gaussian_noise", "lsq_qat"))
    assert len(trained.training) == 5


def test_a_large_set_is_joined_from_shards_whose_size_enters_no_key_of_what_comes_after(monkeypatch):
    assignments = ("maskaq.refresh_every=1", "lsq_qat.epochs=2", "maskaq.images=10", "maskaq.batch_size=4")
    whole = plan_with(*assignments)
    assert not any(stage.kind == "shard" for stage in whole.stages.values())
    steps = next(t for t in whole.trials if t.method == "maskaq").settings["synthesizer"]["iterations"]
    monkeypatch.setattr(stage_builder, "STEPS_PER_SHARD", 2 * steps)
    divided = plan_with(*assignments)
    assert [t.trial for t in divided.trials] == [t.trial for t in whole.trials]
    trial = next(t for t in divided.trials if t.method == "maskaq")
    first, _, later, _ = (divided.stages[key] for key in trial.making)
    for made in (first, later):
        parts = [divided.stages[key] for role, key in made.parents.items() if role.startswith("shard")]
        assert [part.settings["batches"] for part in parts] == [[0, 2], [2, 3]]
    assert {role for role in later.parents if not role.startswith("shard")} == {"images"}
    assert {*parts[0].parents} == {"images", "training"}


def test_a_shard_is_as_much_work_as_the_steps_of_its_batches():
    paper = get_method("maskaq").synthesizer(MaskaqConfig())
    shards = shards_of(paper, 0)
    assert len(shards) == 125
    assert (shards[0], shards[-1]) == (range(0, 5), range(620, 625))
    steps = get_method("psaq_vit_v2").synthesizer(PsaqVitV2Config())
    assert len(shards_of(steps, 0)) == 16
    assert shards_of(steps, 10) == []
    assert shards_of(get_method("gdfq").synthesizer(GeneratorConfig()), 0) == []
