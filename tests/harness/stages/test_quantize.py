"""The stage that makes a student, from stored images or from some made on the way."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from harness.stages.base import RunContext
from harness.stages.facts import student_facts, synthesis_facts
from harness.stages.rebuild import stored_student, teacher_of
from harness.stages.run_stage import run_stage


def test_a_student_of_stored_images_takes_over_what_is_known_of_them(bench):
    stage = bench.student("psaq_vit")
    facts = student_facts(bench.store, stage.key)
    images = synthesis_facts(bench.store, stage.parents["images"])
    assert facts.synthetic_images == images.synthetic_images
    assert facts.cost.synthesis_seconds == images.cost.synthesis_seconds
    assert facts.cost.quantization_seconds > 0
    assert facts.cost.peak_memory_mb >= images.cost.peak_memory_mb
    assert facts.final_losses == images.final_losses
    assert facts.gradient_shares == images.gradient_shares
    assert "patch_entropy" in facts.gradient_shares.shares
    assert facts.recipe.engine == "psaq_ptq"
    assert facts.recipe.bits == "w4a4"
    assert "images" not in bench.store.tensors(stage.key)


@pytest.mark.parametrize(("engine", "apart"), [("lsq_qat", True), ("psaq_ptq", False)])
def test_images_that_a_student_shapes_lie_apart_where_the_plan_knows_when_they_are_made(bench, engine, apart):
    making = bench.making("maskaq", engine)
    stage = making.student
    facts, stored = student_facts(bench.store, stage.key), bench.store.images(making.images.key)
    assert list(stage.parents) == ["images"]
    assert all(name.startswith("student.") for name in bench.store.tensors(stage.key))
    assert ("images" in bench.store.images(stage.key)) == (not apart)
    assert stored["images"].shape[0] == stored["labels"].shape[0] == facts.synthetic_images > 0
    assert facts.final_losses
    assert set(facts.gradient_shares.shares) == set(facts.final_losses)
    assert facts.cost.synthesis_seconds > 0
    assert facts.cost.quantization_seconds > 0


def test_a_stored_student_answers_again_as_it_did(bench):
    stage = bench.student("gaussian_noise")
    teacher = teacher_of(stage, bench.context)
    probe = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, again = (stored_student(bench.store, stage.key, teacher)(probe) for _ in range(2))
        assert torch.equal(first, again)
        assert not torch.equal(first, teacher.model(probe))


def test_the_record_of_a_compensated_student_says_what_that_takes(bench):
    stage = bench.student("gaussian_noise", "error_reduction")
    width = 64
    assert bench.store.tensors(stage.key)["student.blocks.0.compensation.bias"].shape == (width,)
    extra = 4 * (2 * width**2 + 4 * width)
    assert f"compensation adds {extra:,} bytes to the student" in student_facts(bench.store, stage.key).notes
    assert student_facts(bench.store, bench.student("gaussian_noise").key).notes == ()


class Watch:
    """Scores every student with 7 and asks to stop it when told to."""

    reports = 2

    def __init__(self, stop: bool) -> None:
        self.stop = stop

    def score(self, student, teacher, context: RunContext, store) -> float:
        if self.stop:
            store.ask_to_stop("watched")
        return 7.0


def test_watching_a_student_does_not_change_it(bench):
    stage = bench.student("gaussian_noise", "lsq_qat")
    watched = dataclasses.replace(stage, key="watched")
    assert run_stage(watched, dataclasses.replace(bench.context, watch=Watch(False))).status == "done"
    assert bench.store.reports("watched") == {1: 7.0, 2: 7.0}
    plain, seen = bench.store.tensors(stage.key), bench.store.tensors("watched")
    assert plain.keys() == seen.keys()
    assert all(torch.equal(plain[name], seen[name]) for name in plain)


def test_a_student_that_a_search_wants_no_more_is_given_up_after_its_epoch(bench):
    stage = dataclasses.replace(bench.student("gaussian_noise", "lsq_qat"), key="watched")
    folder = bench.store.root / "artifacts" / "watched"
    if folder.exists():
        folder.rename(bench.store.root / "partial" / "old-watched")
    result = run_stage(stage, dataclasses.replace(bench.context, watch=Watch(True)))
    assert result.status == "stopped"
    assert bench.store.reports("watched") == {1: 7.0}
    assert not bench.store.holds("watched")
