import pytest
import torch

from backbones.families.explicit import AttentionTaps
from methods import configure
from methods.base import SynthesisTask
from methods.smi import Smi, SmiConfig, SmiObjective, only_tokens, token_places
from methods.synthesis.loop import Batch, optimize
from methods.testing.models import blobs, tiny

PATCHES = 64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def objective_on(name: str = "digits_vit", seed: int = 0, **settings) -> SmiObjective:
    batch = Batch(tiny(name), torch.arange(4), seeded(seed))
    return SmiObjective(SmiConfig(**settings), batch)


def is_zero(images: torch.Tensor) -> torch.Tensor:
    """Which of the 2 x 2 patches are 0 altogether, (B, 8, 8)."""
    return (images == 0).unflatten(3, (8, 2)).unflatten(2, (8, 2)).all(dim=5).all(dim=3).squeeze(1)


@pytest.mark.parametrize(("at", "left"), [((0,), 44), ((0, 1), 30), ((0, 1, 2, 3), 14)])
def test_each_time_30_percent_of_the_patches_left_are_given_up(at, left):
    config = configure(SmiConfig, "smoke", {"prune_at": list(at), "iterations": 6})
    made = Smi(config).synthesize(SynthesisTask(tiny("digits_vit"), generator=seeded())).images
    assert is_zero(made).flatten(1).sum(dim=1).tolist() == [PATCHES - left] * 4


@pytest.mark.parametrize(("name", "prune"), [("digits_vit", False), ("digits_swin", True)])
def test_dense_inversion_gives_nothing_up(name, prune):
    made = Smi(configure(SmiConfig, "smoke", {"prune": prune})).synthesize(
        SynthesisTask(tiny(name), generator=seeded())
    )
    assert not is_zero(made.images).any()


def test_patches_that_cls_attends_to_stay():
    objective, images = objective_on(prune_at=(0,)), blobs(4)
    objective.view(images, 0)
    with AttentionTaps(tiny("digits_vit").model, maps=True) as taps, torch.no_grad():
        tiny("digits_vit").model(images)
    attention = taps.maps[-1][:, :, 0, 1:].mean(dim=1)
    given_up = is_zero(objective.finished(images)).flatten(1)
    for image in range(4):
        assert attention[image][given_up[image]].max() <= attention[image][~given_up[image]].min()


def test_a_later_round_ranks_only_the_patches_left():
    objective, images = objective_on(prune_at=(0, 1)), blobs(4)
    objective.view(images, 0)
    before = is_zero(objective.finished(images))
    objective.view(images, 1)
    after = is_zero(objective.finished(images))
    assert (after >= before).all()
    assert after.sum() == 4 * (PATCHES - 30)


def test_the_ranking_is_that_of_the_iteration_before_and_neither_view_is_moved():
    objective, before, after = objective_on(prune_at=(3,)), blobs(4), blobs(4, seed=1)
    assert not torch.equal(objective.view(before, 1)[:, :1], before)
    assert torch.equal(objective.view(before, 2)[:, :1], before)
    assert torch.equal(objective.view(after, 3)[:, :1], after)
    assert not torch.equal(objective.view(after, 4)[:, :1], after)
    expected = objective_on(prune_at=(0,))
    expected.view(before, 0)
    other = objective_on(prune_at=(0,))
    other.view(after, 0)
    given_up = [is_zero(o.finished(after)) for o in (objective, expected, other)]
    assert torch.equal(given_up[0], given_up[1])
    assert not torch.equal(given_up[0], given_up[2])


def test_patches_given_up_keep_their_pixels_while_the_others_go_on():
    class Watched(SmiObjective):
        def finished(self, images):
            self.last = images.clone()
            return super().finished(images)

    def run(iterations: int) -> Watched:
        # given up before the first step, they have no momentum that would carry them on
        objective = Watched(SmiConfig(prune_at=(0,)), Batch(tiny("digits_vit"), torch.arange(4), seeded()))
        optimize(blobs(4).clamp(-0.9, 2), objective, iterations)
        return objective

    watched = run(5)
    kept = watched._kept_pixels(watched.last)
    moved = watched.last != blobs(4).clamp(-0.9, 2)
    assert not moved[~kept].any()
    assert moved[kept].float().mean() > 0.9


def test_the_forward_runs_on_cls_and_the_tokens_left_alone():
    model, images = tiny("digits_vit").model, blobs(2)
    kept = torch.zeros(2, 8, 8, dtype=torch.bool)
    kept[0, 1, 2] = kept[0, 7, 7] = kept[1, 0, 0] = kept[1, 3, 4] = True
    with torch.no_grad():
        with only_tokens(model, kept, 2), AttentionTaps(model, outputs=True) as taps:
            predictions = model(images)
        tokens = model._pos_embed(model.patch_embed(images))
        by_hand = torch.stack([tokens[0, [0, 11, 64]], tokens[1, [0, 1, 29]]])
        for block in model.blocks:
            by_hand = block(by_hand)
        expected = model.forward_head(model.norm(by_hand))
    assert all(output.shape[2] == 3 for output in taps.outputs)
    torch.testing.assert_close(predictions, expected)
    with torch.no_grad():
        assert not torch.allclose(model(images), predictions)  # the model is whole again


def test_token_places_are_in_order():
    kept = torch.tensor([[[False, True], [True, False]], [[True, False], [False, True]]])
    assert token_places(kept, 2).tolist() == [[1, 2], [0, 3]]


def test_the_view_s_tokens_follow_the_shift_and_the_flip():
    """Patches whose every pixel shows what was kept must be tokens; there are as many as were kept."""
    images = blobs(4)
    for seed in range(12):
        objective = objective_on(seed=seed, prune_at=(0,))
        objective.view(images, 0)
        view = objective.view(images, 1)
        marks = view[:, -1]
        tokens = marks[:, ::2, ::2] > 0
        assert tokens.flatten(1).sum(dim=1).tolist() == [44] * 4
        whole = marks.unflatten(2, (8, 2)).unflatten(1, (8, 2)).amin(dim=(2, 4)) > 0
        assert (tokens >= whole).all()


def test_the_loss_ignores_what_the_view_shows_of_patches_given_up():
    objective = objective_on(prune_at=(0,), variation_weight=0.0)
    images = blobs(4).requires_grad_()
    view = objective.view(images, 0)
    loss = objective.losses(images, view, 0)["one_hot"]
    (gradient,) = torch.autograd.grad(loss, images)
    kept = objective._kept_pixels(images)
    assert not gradient[~kept].any()
    assert gradient[kept].any()


def test_the_terms_are_what_they_say():
    teacher, images = tiny("digits_vit"), blobs(4)
    objective = objective_on(prune=False, one_hot_weight=2.0, variation_weight=0.5)
    view = objective.view(images, 0)
    with torch.no_grad():
        losses = objective.losses(images, view, 0)
        log_probabilities = teacher.model(view).log_softmax(dim=1)
    assert losses["one_hot"].item() == pytest.approx(-2 * log_probabilities.diagonal().mean().item())
    differences = (
        images.diff(dim=-1),
        images.diff(dim=-2),
        images[..., 1:, 1:] - images[..., :-1, :-1],
        images[..., 1:, :-1] - images[..., :-1, 1:],
    )
    scale = (32 * 3 * 224 * 224 / images.numel()) ** 0.5
    expected = 0.5 * scale * sum(d.square().sum().sqrt().item() for d in differences)
    assert losses["variation"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("prune", [False, True])
def test_optimisation_lowers_the_loss(prune):
    objective = objective_on(prune=prune, prune_at=(0,))
    noise = torch.randn(4, 1, 16, 16, generator=seeded()).clamp(-0.9, 2)
    objective.view(noise, 0)
    images, _ = optimize(noise, objective, 60)

    def total(images: torch.Tensor) -> float:
        marks = objective._kept_pixels(images).float() if prune else images[:, :0]
        losses = objective.losses(images, torch.cat([images, marks], dim=1), 1)
        return sum(loss.item() for loss in losses.values())

    assert total(images) < 0.7 * total(noise)


def test_the_view_shifts_by_up_to_an_eighth_of_the_side():
    images = torch.zeros(4, 1, 16, 16)
    images[:, :, 8, 8] = 1
    places = set()
    for seed in range(60):
        view = objective_on(seed=seed, prune=False).view(images, 0)
        places.add(divmod(int(view[0, 0].argmax()), 16))
    assert {row for row, _ in places} == {6, 7, 8, 9, 10}
    assert {column for _, column in places} == {5, 6, 7, 8, 9, 10}  # mirrored: 15 - column


def test_the_rate_is_constant():
    objective = objective_on()
    assert {objective.learning_rate(i) for i in (0, 100, 3999)} == {0.25}
    (group,) = objective.optimizer(blobs(1).requires_grad_()).param_groups
    assert group["betas"] == (0.5, 0.99)
