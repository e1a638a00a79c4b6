from __future__ import annotations

import pytest
import torch

from methods import get_method
from methods.base import SynthesisTask
from methods.psaq_vit_v2 import PsaqVitV2, PsaqVitV2Config, PsaqVitV2Objective
from methods.synthesis.loop import Batch
from methods.testing.models import disturbed, seeded, synthesizer, untrained


def terms(student: torch.nn.Module | None, **settings) -> dict[str, float]:
    teacher = untrained("digits_vit")
    batch = Batch(teacher, torch.arange(4), seeded(), student)
    images = torch.randn(4, 1, 16, 16, generator=seeded())
    losses = PsaqVitV2Objective(PsaqVitV2Config(**settings), batch).losses(images, images, 0)
    return {name: loss.item() for name, loss in losses.items()}


def test_the_student_adds_a_disagreement_that_images_are_to_raise():
    teacher = untrained("digits_vit")
    alone, together = terms(None), terms(disturbed(teacher))
    assert set(alone) == {"patch_entropy", "variation"}
    assert {name: together[name] for name in alone} == alone
    assert together["discrepancy"] < 0
    assert terms(disturbed(teacher), discrepancy_weight=3.0)["discrepancy"] == pytest.approx(
        3 * together["discrepancy"]
    )
    assert terms(teacher.model)["discrepancy"] == 0


def test_a_class_loss_is_there_only_when_asked_for():
    assert set(terms(None, one_hot_weight=0.5)) == {"patch_entropy", "variation", "one_hot"}
    teacher = untrained("digits_vit")
    plain = synthesizer("psaq_vit_v2").synthesize(SynthesisTask(teacher, generator=seeded()))
    guided = synthesizer("psaq_vit_v2", one_hot_weight=1.0).synthesize(
        SynthesisTask(teacher, generator=seeded())
    )
    assert plain.labels.tolist() == [-1] * 4
    assert guided.labels.min() >= 0


def test_the_first_set_is_made_without_the_student():
    teacher = untrained("digits_vit")
    alone = synthesizer("psaq_vit_v2").synthesize(SynthesisTask(teacher, generator=seeded()))
    together = synthesizer("psaq_vit_v2").synthesize(
        SynthesisTask(teacher, generator=seeded(), student=disturbed(teacher))
    )
    assert torch.equal(alone.images, together.images)


def test_a_later_set_starts_from_the_one_before():
    teacher = untrained("digits_vit")
    settings = {"images": 6, "batch_size": 4, "learning_rate": 0.02, "refresh_iterations": 2}
    maker = synthesizer("psaq_vit_v2", **settings)
    made = maker.synthesize(SynthesisTask(teacher, generator=seeded()))
    first = made.images
    later = maker.synthesize(
        SynthesisTask(teacher, generator=seeded(1), student=disturbed(teacher), epoch=2, previous=made)
    ).images
    assert later.shape == first.shape
    moved = (later - first).abs()
    assert 0 < moved.max() < 0.1
    from_noise = synthesizer("psaq_vit_v2", **settings).synthesize(
        SynthesisTask(teacher, generator=seeded(1), student=disturbed(teacher), epoch=2)
    )
    assert (from_noise.images - first).abs().max() > 1


def test_a_later_set_raises_the_disagreement():
    teacher = untrained("digits_vit")
    student = disturbed(teacher, 0.2)
    alone = {"entropy_weight": 0, "variation_weight": 0, "learning_rate": 0.05, "refresh_iterations": 40}
    maker = synthesizer("psaq_vit_v2", **alone)
    first = maker.synthesize(SynthesisTask(teacher, generator=seeded()))
    later = maker.synthesize(
        SynthesisTask(teacher, generator=seeded(), student=student, epoch=2, previous=first)
    )
    images = (first.images, later.images)
    with torch.no_grad():
        before, after = (teacher.guidance.disagreement(teacher.model(x), student(x)) for x in images)
    assert after > 1.2 * before


def test_a_later_set_needs_the_student_and_leaves_it_as_it_was():
    teacher = untrained("digits_vit")
    student = disturbed(teacher)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    maker = synthesizer("psaq_vit_v2")
    with pytest.raises(ValueError, match="needs the student"):
        maker.synthesize(SynthesisTask(teacher, generator=seeded(), epoch=2))
    maker.synthesize(SynthesisTask(teacher, generator=seeded(), student=student, epoch=2))
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in student.parameters())


def test_image_steps_are_as_many_as_student_steps():
    config = PsaqVitV2Config()
    maker = PsaqVitV2(config)
    assert [epoch for epoch in range(100) if maker.refreshes_at(epoch)] == list(range(10, 100, 10))
    batches = -(-config.images // config.batch_size)
    student_steps = config.refresh_every * config.images / get_method("mimiq").synthesizer.Config().batch_size
    assert batches * config.refresh_iterations == pytest.approx(student_steps, rel=0.01)
    assert not PsaqVitV2(PsaqVitV2Config(refresh_every=0)).refreshes_at(10)


def test_it_is_not_put_beside_published_rows():
    method = get_method("psaq_vit_v2")
    assert method.published_name is None
    assert method.title == "PSAQ-ViT V2-style"
