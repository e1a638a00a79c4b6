import pytest
import torch

from backbones.families.explicit import AttentionTaps
from methods.sardfq import SardfqConfig, SardfqObjective, first_layer, wanted_classes
from methods.synthesis.attention_mixtures import mixture_loss, received_attention
from methods.synthesis.crops import enlarged
from methods.synthesis.loop import Batch
from methods.testing.models import DIGITS_MODELS, blobs, tiny


def objective_on(name: str, seed: int = 0, **settings) -> SardfqObjective:
    batch = Batch(tiny(name), torch.arange(4), torch.Generator().manual_seed(seed))
    return SardfqObjective(SardfqConfig(**settings), batch)


def test_the_deeper_half_begins_at_half_the_depth():
    assert [first_layer(depth) for depth in (1, 4, 12, 24)] == [1, 2, 6, 12]


def test_an_image_is_made_for_its_own_class_and_those_of_its_crops():
    wanted = wanted_classes(torch.tensor([2, 0]), torch.tensor([0, 0, 1]), torch.tensor([1, 2, 3]), 4)
    assert wanted.int().tolist() == [
        [0, 1, 1, 0],  # class 2, with crops of 1 and 2
        [1, 0, 0, 1],  # class 0, with a crop of 3
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]


@pytest.mark.parametrize("name", DIGITS_MODELS)
def test_a_view_shows_the_images_then_their_crops(name):
    objective, images = objective_on(name), blobs(4)
    view = objective.view(images, 0)
    crops = enlarged(images, objective._crops)
    assert 4 <= len(crops) <= 16
    assert len(view) == 4 + len(crops)
    for shown, whole in zip(view, torch.cat([images, crops]), strict=True):
        # rolled and perhaps mirrored: the same pixels in another order
        torch.testing.assert_close(shown.flatten().sort().values, whole.flatten().sort().values)


@pytest.mark.parametrize("name", DIGITS_MODELS)
def test_the_prior_is_the_depth_weighted_sum_over_heads(name):
    teacher = tiny(name)
    objective, images = objective_on(name), blobs(4)
    view = objective.view(images, 0)
    with AttentionTaps(teacher.model, maps=True) as taps, torch.no_grad():
        teacher.model(view)
        found = objective._attention_prior(taps.maps)
    expected = 0.0
    assert len(objective._mixtures) == 3  # layers 2, 3 and 4 of 4
    for layer, mixtures in zip((2, 3, 4), objective._mixtures, strict=True):
        attention = received_attention(taps.maps[layer - 1], prefix_tokens=teacher.prefix_tokens)
        windows = len(attention) // len(view)
        for head in range(attention.shape[1]):
            of_images = [
                mixture_loss(
                    attention[image * windows : (image + 1) * windows, head : head + 1],
                    mixtures[image, head].expand(windows, 1, -1),
                ).item()
                for image in range(len(view))
            ]
            expected += layer / 4 * sum(of_images) / len(view)
    assert found.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", DIGITS_MODELS)
def test_the_class_loss_is_the_cross_entropy_with_soft_labels(name):
    teacher = tiny(name)
    objective, images = objective_on(name), blobs(4)
    view = objective.view(images, 0)
    with torch.no_grad():
        losses = objective.losses(images, view, 0)
        logs = teacher.model(view).log_softmax(dim=1)
    torch.testing.assert_close(objective._targets.sum(dim=1), torch.ones(len(view)))
    torch.testing.assert_close(losses["soft_label"], -(objective._targets * logs).sum(dim=1).mean())
    torch.testing.assert_close(losses["variation"], objective.variation(view[:4]))


def test_the_prior_is_balanced_with_the_class_loss_and_then_stays():
    objective, images = objective_on("digits_vit", iterations=100, prior_weight=2.0), blobs(4)
    view = objective.view(images, 0)
    with torch.no_grad():
        for iteration in (0, 10):
            losses = objective.losses(images, view, iteration)
            assert losses["attention_prior"].item() == pytest.approx(2 * losses["soft_label"].item())
        balance = objective._balance
        other = torch.randn(view.shape, generator=torch.Generator().manual_seed(1))
        later = objective.losses(images, other, 11)
        assert objective._balance is balance
        assert later["attention_prior"].item() != pytest.approx(2 * later["soft_label"].item(), rel=1e-3)


def test_the_balance_has_a_largest_value(monkeypatch):
    objective, images = objective_on("digits_vit"), blobs(4)
    monkeypatch.setattr(objective, "_attention_prior", lambda maps: torch.tensor(1e-9))
    losses = objective.losses(images, objective.view(images, 0), 0)
    assert losses["attention_prior"].item() == pytest.approx(1e-4)


def test_the_balance_carries_no_gradient():
    objective, images = objective_on("digits_vit"), blobs(4).requires_grad_()
    view = objective.view(images, 0)
    losses = objective.losses(images, view, 0)
    (found,) = torch.autograd.grad(losses["attention_prior"], images, retain_graph=True)
    objective._balance = torch.ones(())
    plain = objective.losses(images, view, 500)["attention_prior"]
    (unscaled,) = torch.autograd.grad(plain, images)
    scale = losses["attention_prior"].item() / plain.item()
    torch.testing.assert_close(found, scale * unscaled, rtol=1e-3, atol=1e-6)


def test_parts_can_be_switched_off():
    images = blobs(4)
    bare = objective_on("digits_vit", prior_weight=0.0, crops=0)
    view = bare.view(images, 0)
    assert view.shape == images.shape
    assert set(bare.losses(images, view, 0)) == {"soft_label", "variation"}


def test_every_batch_draws_its_own_crops_labels_and_mixtures():
    first, again, other = (objective_on("digits_vit", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first._targets, again._targets)
    assert torch.equal(first._mixtures[0], again._mixtures[0])
    assert all(torch.equal(a, b) for a, b in zip(first._crops, again._crops, strict=True))
    assert not torch.equal(first._targets[:4], other._targets[:4])
