"""MaskAQ: entropy of attention rows, alignment with the student, refreshes and what the engine gets."""

from __future__ import annotations

import copy

import pytest
import torch

from backbones import Backbone
from backbones.families.explicit import AttentionTaps
from methods import configure
from methods.base import SynthesisTask
from methods.maskaq import METHOD, Maskaq, MaskaqConfig, MaskaqObjective
from methods.synthesis.attention_priors import (
    gaussian_patch_entropy,
    informative_mask,
    masked_alignment,
    patch_attention,
)
from methods.synthesis.loop import Batch
from methods.testing.models import DIGITS_MODELS, disturbed, seeded, synthesizer, untrained


@pytest.fixture(scope="module", params=DIGITS_MODELS)
def teacher(request) -> Backbone:
    return untrained(request.param)


def batch_of(teacher: Backbone, count: int = 4, **more) -> Batch:
    return Batch(teacher, torch.arange(count), seeded(), **more)


def logits_of(model: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    with AttentionTaps(model, logits=True) as taps:
        model(images)
    return taps.logits


def mean(values: list[torch.Tensor]) -> float:
    return torch.stack(values).mean().item()


def test_the_entropy_is_the_mean_over_layers_of_the_rows_entropy(teacher):
    images = torch.randn(4, 1, 16, 16, generator=seeded())
    config = MaskaqConfig(entropy_weight=2.0, entropy_rows=4096)  # more rows than there are: all are taken
    losses = MaskaqObjective(config, batch_of(teacher)).losses(images, images, 0)
    layers = logits_of(teacher.model, images)
    expected = mean([gaussian_patch_entropy(x, prefix_tokens=teacher.prefix_tokens) for x in layers])
    assert losses["row_entropy"].item() == pytest.approx(-2 * expected, rel=1e-5)


@pytest.mark.parametrize(("iteration", "share"), [(0, 0.5), (1000, 0.3), (2000, 0.1)])
def test_the_alignment_looks_at_a_shrinking_share_of_the_patches(teacher, iteration, share):
    images = torch.randn(4, 1, 16, 16, generator=seeded())
    student = disturbed(teacher)
    config = MaskaqConfig(alignment_weight=3.0, mask_drop=0.0)
    losses = MaskaqObjective(config, batch_of(teacher, student=student)).losses(images, images, iteration)
    prefix = teacher.prefix_tokens
    wanted, given = (
        [patch_attention(x, prefix_tokens=prefix) for x in logits_of(model, images)]
        for model in (teacher.model, student)
    )
    # One mask for every layer of a ViT; a Swin's windows change from layer to layer.
    seen = [torch.stack(wanted).mean(dim=0)] * len(wanted) if prefix else wanted
    masks = [informative_mask(attention, share) for attention in seen]
    expected = mean([masked_alignment(*layer) for layer in zip(wanted, given, masks, strict=True)])
    assert losses["alignment"].item() == pytest.approx(3 * expected, rel=1e-5)


def test_makes_the_first_set_without_the_student(teacher):
    synthesizer = Maskaq(configure(MaskaqConfig, "smoke", {}))
    alone = synthesizer.synthesize(SynthesisTask(teacher, generator=seeded(), epoch=0))
    together = synthesizer.synthesize(
        SynthesisTask(teacher, generator=seeded(), student=disturbed(teacher), epoch=0)
    )
    assert torch.equal(alone.images, together.images)
    assert set(alone.final_losses) == {"head_similarity", "one_hot", "variation", "row_entropy"}


def test_with_the_student_in_the_first_set_aligns_from_the_start(teacher):
    synthesizer = Maskaq(configure(MaskaqConfig, "smoke", {"student_in_first_set": True}))
    made = synthesizer.synthesize(
        SynthesisTask(teacher, generator=seeded(), student=disturbed(teacher), epoch=0)
    )
    assert made.final_losses["alignment"] > 0
    with pytest.raises(ValueError, match="needs the student"):
        synthesizer.synthesize(SynthesisTask(teacher, generator=seeded(), epoch=0))


def test_alignment_sends_gradients_through_both_models(teacher):
    config = MaskaqConfig(entropy_weight=0.0, head_weight=0.0, one_hot_weight=0.0, variation_weight=0.0)
    student = disturbed(teacher)
    images = torch.randn(4, 1, 16, 16, generator=seeded())

    def gradient(through_teacher: bool) -> torch.Tensor:
        x = images.clone().requires_grad_()
        objective = MaskaqObjective(config, batch_of(teacher, student=student))
        seen = x if through_teacher else x.detach()
        original = teacher.model.forward

        def teacher_forward(view: torch.Tensor) -> torch.Tensor:
            return original(seen)

        teacher.model.forward = teacher_forward
        try:
            loss = objective.losses(x, x, 0)["alignment"]
        finally:
            teacher.model.forward = original
        return torch.autograd.grad(loss, x)[0]

    assert gradient(True).abs().sum() > 0
    assert not torch.equal(gradient(True), gradient(False))


def test_alignment_vanishes_for_a_perfect_student(teacher):
    objective = MaskaqObjective(MaskaqConfig(), batch_of(teacher, student=copy.deepcopy(teacher.model)))
    images = torch.randn(4, 1, 16, 16, generator=seeded())
    assert objective.losses(images, images, 0)["alignment"] == 0


@pytest.mark.parametrize(
    ("off", "term"), [("entropy_weight", "row_entropy"), ("alignment_weight", "alignment")]
)
def test_parts_can_be_switched_off(teacher, off, term):
    student = disturbed(teacher)

    def terms(**overrides) -> set[str]:
        synthesizer = Maskaq(configure(MaskaqConfig, "smoke", overrides))
        return set(
            synthesizer.synthesize(
                SynthesisTask(teacher, generator=seeded(), student=student, epoch=30)
            ).final_losses
        )

    assert terms() - terms(**{off: 0}) == {term}


def test_without_entropy_and_student_is_mimiq(teacher):
    overrides = {"iterations": 4}
    plain = synthesizer("mimiq", **overrides).synthesize(SynthesisTask(teacher, generator=seeded()))
    reduced = synthesizer("maskaq", entropy_weight=0, alignment_weight=0, **overrides)
    assert torch.equal(plain.images, reduced.synthesize(SynthesisTask(teacher, generator=seeded())).images)


@pytest.mark.parametrize("setting", ["mask_drop", "mask_first", "entropy_rows"])
def test_mask_and_rows_change_the_losses(setting):
    teacher = untrained("digits_vit")
    student = disturbed(teacher)
    images = torch.randn(4, 1, 16, 16, generator=seeded())
    value = {"mask_drop": 0.0, "mask_first": 0.2, "entropy_rows": 8}[setting]

    def losses(config: MaskaqConfig) -> dict:
        objective = MaskaqObjective(config, batch_of(teacher, student=student))
        return dict(objective.losses(images, images, 0))

    changed = "row_entropy" if setting == "entropy_rows" else "alignment"
    assert losses(MaskaqConfig())[changed] != losses(MaskaqConfig(**{setting: value}))[changed]


def test_refreshes_every_thirty_epochs():
    synthesizer = Maskaq(MaskaqConfig())
    assert [epoch for epoch in range(100) if synthesizer.refreshes_at(epoch)] == [30, 60, 90]
    fast = Maskaq(configure(MaskaqConfig, "fast", {}))
    assert [epoch for epoch in range(10) if fast.refreshes_at(epoch)] == [5]
    assert not Maskaq(MaskaqConfig(refresh_every=0)).refreshes_at(30)


def test_engine_settings_follow_the_config():
    assert METHOD.engine_settings(MaskaqConfig()) == {"head_distillation": "masked"}
    assert METHOD.engine_settings(MaskaqConfig(masked_distillation=False)) == {
        "head_distillation": "structural"
    }
