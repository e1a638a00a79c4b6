"""A training that is cut into stages: the student of one that is not, its costs, scores and failures."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from harness.planning import making, stage_builder
from harness.planning.making import Making, making_of
from harness.planning.plan import missing_for
from harness.planning.request import Machine, Places, Request, Rows
from harness.planning.session import open_workbench
from harness.stages.base import Stage
from harness.stages.facts import StudentRecipe, images_facts, read_facts, student_facts, training_facts
from harness.stages.kinds import get_kind
from harness.stages.rebuild import engine_of, generator_of, synthesizer_of, teacher_of
from harness.stages.run_stage import run_stage
from harness.store import open_store
from methods.base import CoupledImages, QuantizationTask, SynthesisFailed, SynthesisTask
from methods.bits import Bits
from methods.maskaq import Maskaq
from tests.harness.stages.conftest import BACKBONE, Bench

SETTINGS = ("lsq_qat.epochs=3", "lsq_qat.learning_rate=0.002", "maskaq.iterations=2", "maskaq.images=4")


@pytest.fixture
def bench_of(tmp_path, monkeypatch):
    """A workbench with settings of a test, its trainings cut after every epoch and its sets into batches."""
    monkeypatch.setattr(making, "IMAGES_PER_LINK", 1)
    monkeypatch.setattr(stage_builder, "STEPS_PER_SHARD", 1)

    def of(*assignments: str, oracle: bool = False) -> Bench:
        rows = Rows(suite="digits_w4a4", budget="smoke", assignments=(*SETTINGS, *assignments), oracle=oracle)
        request = Request(
            rows, Places(store=str(tmp_path / "store")), Machine(device="cpu", cpus_per_trial=1)
        )
        builder, context, _ = open_workbench(request)
        return Bench(builder, context, open_store(tmp_path / "store"))

    return of


def stages_of(bench: Bench, name: str) -> Making:
    return making_of(bench.builder, name, "lsq_qat", BACKBONE, bench.builder.suite.bits[0], 0)


def uncut(student: Stage, context) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The student and its last images, made by one call of the engine."""
    teacher = teacher_of(student, context)
    source = CoupledImages(synthesizer_of(student.settings), teacher, generator_of(0, "synthesize/0"))
    engine = engine_of(StudentRecipe.of(student.settings))
    task = QuantizationTask(teacher, source, Bits.parse("w4a4"), generator_of(0, "quantize/0"))
    model = engine.quantize(task)
    return {f"student.{name}": value for name, value in model.state_dict().items()}, source.latest.images


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("maskaq", ("maskaq.refresh_every=2", "maskaq.images=5", "maskaq.batch_size=2"), 6),
        ("maskaq", ("maskaq.refresh_every=1", "maskaq.student_in_first_set=true"), 0),
        (
            "psaq_vit_v2",
            ("psaq_vit_v2.refresh_every=1", "psaq_vit_v2.images=5", "psaq_vit_v2.batch_size=2"),
            9,
        ),
        ("adadfq", ("adadfq.refresh_every=2", "adadfq.images=4"), 0),
    ],
)
def test_a_training_in_links_ends_with_the_student_of_one_that_is_not_cut(bench_of, name, settings, count):
    bench = bench_of(*settings)
    made = bench.making(name, "lsq_qat")
    assert len(made.training) == 3
    shards = sum(stage.kind == "shard" for stage in bench.builder.stages.values())
    assert shards == count
    student, images = uncut(made.student, bench.context)
    stored = bench.store.tensors(made.student.key)
    assert set(stored) == set(student)
    assert all(torch.equal(stored[n], value) for n, value in student.items())
    assert torch.equal(bench.store.images(made.images.key)["images"], images)


def test_a_batch_that_collapses_is_repeated_alone_however_the_set_is_divided(bench_of, monkeypatch):
    bench = bench_of("maskaq.images=6", "maskaq.batch_size=2")
    first = stages_of(bench, "maskaq").stages[0]
    shards = [bench.builder.stages[key] for key in first.parents.values()]
    whole = dataclasses.replace(first, parents={}, key="whole")
    drawn, asked = Maskaq.synthesize, []

    def collapsing(self, task: SynthesisTask):
        asked.append(task.batches)
        if asked[-2:] == [range(1, 2)] * 2 or task.batches != range(1, 2):
            return drawn(self, task)
        raise SynthesisFailed("planted")

    monkeypatch.setattr(Maskaq, "synthesize", collapsing)
    for stage in (*shards, first, whole):
        bench.made(stage)
    assert asked == 2 * [range(0, 1), range(1, 2), range(1, 2), range(2, 3)]
    joined, at_once = (bench.store.tensors(stage.key) for stage in (first, whole))
    assert len(shards) == 3
    assert joined.keys() == at_once.keys()
    assert all(torch.equal(joined[name], at_once[name]) for name in joined)
    facts = [images_facts(bench.store, stage.key) for stage in (first, whole)]
    assert facts[0].notes == facts[1].notes == ("synthesis was repeated with the next seed: planted",)
    assert facts[0].final_losses == pytest.approx(facts[1].final_losses)
    assert facts[0].gradient_shares == facts[1].gradient_shares


def test_costs_and_the_oracle_add_up_over_the_chain(bench_of):
    bench = bench_of("maskaq.refresh_every=2", oracle=True)
    made = bench.making("maskaq", "lsq_qat")
    first, one, two, second, student = made.stages
    bench.store.remove(student.key)  # with it what led to it is there again
    for stage in missing_for([two.key], bench.builder.stages, bench.store):
        bench.made(stage)
    sets = [images_facts(bench.store, stage.key) for stage in (first, second)]
    links = [training_facts(bench.store, stage.key) for stage in (one, two)]
    bench.made(student)
    facts = student_facts(bench.store, student.key)
    assert 0 < sets[0].cost.synthesis_seconds < sets[1].cost.synthesis_seconds
    assert sets[1].cost.quantization_seconds is None
    assert [f.cost.synthesis_seconds for f in links] == [sets[0].cost.synthesis_seconds] * 2
    assert facts.cost.synthesis_seconds == sets[1].cost.synthesis_seconds
    seconds = [f.cost.quantization_seconds for f in (*links, facts)]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert 0 < links[0].oracle <= links[1].oracle <= facts.oracle
    assert facts.epoch == sets[1].epoch == 2
    assert facts.final_losses == sets[1].final_losses
    assert facts.synthetic_images == 4
    assert "images" not in bench.store.tensors(student.key)


def test_a_later_set_that_collapses_is_made_once_more_with_another_seed(bench_of, monkeypatch):
    bench = bench_of("maskaq.refresh_every=1", "lsq_qat.epochs=2")
    made = stages_of(bench, "maskaq")
    for stage in made.stages[:-2]:
        bench.made(stage)
    drawn, attempts = Maskaq.synthesize, []

    def collapsing(self, task: SynthesisTask):
        attempts.append(task.generator.get_state())
        if len(attempts) == 1:
            raise SynthesisFailed("planted")
        return drawn(self, task)

    monkeypatch.setattr(Maskaq, "synthesize", collapsing)
    for stage in made.stages[-2:]:
        bench.made(stage)
    assert len(attempts) == 2
    assert not torch.equal(*attempts)
    notes = student_facts(bench.store, made.student.key).notes
    assert notes == ("synthesis was repeated with the next seed: planted",)


def test_a_watched_training_says_the_same_whether_it_is_cut_or_not(bench_of, monkeypatch):
    class Watch:
        reports = 3

        def score(self, student, teacher, context, store) -> float:
            return float(sum(value.detach().double().abs().sum() for value in student.parameters()))

    bench = bench_of("mimiq.images=4", "mimiq.iterations=2")
    context = dataclasses.replace(bench.context, watch=Watch())
    made = stages_of(bench, "mimiq")
    for stage in made.stages:
        assert run_stage(stage, context).status == "done"
    said = {k: v for stage in made.training for k, v in bench.store.reports(stage.key).items()}
    whole = dataclasses.replace(made.student, parents={"images": made.stages[0].key}, key="whole")
    assert run_stage(whole, context).status == "done"
    assert list(said) == [1, 2, 3]
    assert said == bench.store.reports("whole")
    assert len({*said.values()}) == 3


def test_a_link_needs_no_more_than_its_parents_and_its_kind_of_facts(bench_of):
    bench = bench_of("maskaq.refresh_every=0")
    made = stages_of(bench, "maskaq")
    link = made.training[0]
    for stage in missing_for([link.key], bench.builder.stages, bench.store):
        bench.made(stage)
    kind = get_kind("train")
    assert (link.kind, kind.facts) == ("train", type(read_facts(bench.store, link.key, kind.facts)))
    assert "images" not in bench.store.tensors(link.key)
