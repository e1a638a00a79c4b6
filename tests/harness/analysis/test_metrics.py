from __future__ import annotations

import math

import pytest
import torch
from timm.models.swin_transformer import window_partition

from harness.analysis import metrics


def random_maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).softmax(dim=-1)


def test_cls_attention_is_the_first_row_of_each_head_without_cls():
    maps = torch.zeros(1, 2, 3, 3)
    maps[0, :, 0] = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    assert torch.equal(metrics.cls_attention(maps, 1), torch.tensor([[[0.5, 0.3], [0.1, 0.3]]]))


@pytest.mark.parametrize("shift", [(0, 0), (1, 1)])
def test_window_attention_lies_where_its_tokens_lie(shift):
    """Every token of a 4 x 6 grid is the only key that its window's queries attend to, one at a time."""
    grid, window = (4, 6), (2, 3)
    for row in range(4):
        for column in range(6):
            image = torch.zeros(1, *grid, 1)
            image[0, row, column] = 1.0
            rolled = image.roll((-shift[0], -shift[1]), dims=(1, 2))
            keys = window_partition(rolled, window).flatten(1)  # (windows, 6)
            maps = keys[:, None, None, :].expand(-1, 2, 6, -1)
            received = metrics.window_attention(maps, grid=grid, window=window, shift=shift)
            assert torch.equal(received, image[None, ..., 0].expand(1, 2, *grid))


def test_window_attention_keeps_images_apart_and_the_mass_of_every_window():
    maps = random_maps(2 * 4, 3, 4, 4)
    received = metrics.window_attention(maps, grid=(4, 4), window=(2, 2), shift=(0, 0))
    assert torch.allclose(received.sum(dim=(2, 3)), torch.full((2, 3), 4.0))
    alone = metrics.window_attention(maps[4:], grid=(4, 4), window=(2, 2), shift=(0, 0))
    assert torch.equal(received[1:], alone)
    heads = metrics.window_attention(maps[:, 1:2], grid=(4, 4), window=(2, 2), shift=(0, 0))
    assert torch.equal(received[:, 1:2], heads)


def test_a_token_scores_every_patch_under_it():
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    expected = torch.tensor([1.0, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4])
    assert torch.equal(metrics.on_patches(tokens, (4, 4)), expected.unsqueeze(0))


def test_shares_average_the_layers_and_sum_to_one():
    layers = [torch.tensor([[0.1, 0.3]]), torch.tensor([[0.3, 0.1]]), torch.tensor([[0.0, 0.2]])]
    assert torch.allclose(metrics.patch_shares(layers), torch.tensor([[0.4, 0.6]]))


def test_the_curve_sorts_each_image_by_itself():
    shares = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]])
    curve = metrics.mass_curve(shares)
    assert torch.allclose(curve, torch.tensor([0.6, 0.9, 1.0]))
    assert metrics.patches_for(curve, 0.6) == pytest.approx(1 / 3)
    assert metrics.patches_for(curve, 0.61) == pytest.approx(2 / 3)
    assert metrics.patches_for(curve, 1.0) == 1.0
    assert metrics.mass_of(curve, 0.01) == pytest.approx(0.6)
    assert metrics.mass_of(curve, 2 / 3) == pytest.approx(0.9)


def test_equal_attention_has_the_diagonal_as_its_curve():
    curve = metrics.mass_curve(torch.full((2, 8), 1 / 8))
    assert torch.allclose(curve, torch.arange(1, 9) / 8)
    assert metrics.patches_for(curve, 0.5) == 0.5


def test_concentration_lets_every_head_of_every_image_have_its_own_patches():
    attention = torch.tensor(
        [[[0.4, 0.1, 0.0, 0.0], [0.0, 0.0, 0.2, 0.0]], [[0.1, 0.1, 0.2, 0.4], [0.1] * 4]]
    )
    found = metrics.concentration(attention, 0.25)
    assert torch.allclose(found, torch.tensor([(0.8 + 0.5) / 2, (1 + 0.25) / 2]))
    assert metrics.evenly(0.25, 4) == 0.25
    assert metrics.evenly(0.1, 196) == 20 / 196
    assert metrics.concentration(torch.full((1, 1, 196), 0.3), 0.1).item() == pytest.approx(20 / 196)


def channel(
    images: int, error: float, *, classes: int = 8, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A class for every image, and ln p(class | what a symmetric channel made of it)."""
    source = torch.Generator().manual_seed(seed)
    sent = torch.randint(classes, (images,), generator=source)
    wrong = (sent + torch.randint(1, classes, (images,), generator=source)) % classes
    received = torch.where(torch.rand(images, generator=source) < error, wrong, sent)
    posterior = torch.full((images, classes), error / (classes - 1))
    posterior[torch.arange(images), received] = 1 - error
    return posterior.log(), sent


def channel_information(error: float, classes: int = 8) -> float:
    """By hand: ln K + (1 - e) ln(1 - e) + e ln(e / (K - 1))."""
    return math.log(classes) + (1 - error) * math.log(1 - error) + error * math.log(error / (classes - 1))


@pytest.mark.parametrize("error", [0.05, 0.3, 0.6])
def test_information_is_that_of_a_channel_where_images_are_many(error):
    logits, sent = channel(4000, error)
    assert metrics.information(logits, sent).mean().item() == pytest.approx(
        channel_information(error), abs=0.03
    )


@pytest.mark.parametrize("error", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("sharper", [1.0, 3.0])
def test_information_of_few_images_is_below_that_of_the_channel_but_for_its_one_fitted_number(error, sharper):
    """Mean over 100 draws of 32 images; answers that are too sure of themselves are put right."""
    draws = (channel(32, error, seed=seed) for seed in range(100))
    found = [metrics.information(sharper * logits, sent).mean().item() for logits, sent in draws]
    known = channel_information(error)
    assert known - 0.15 < sum(found) / len(found) < known + 1 / (2 * 32) + 0.02


def test_information_is_at_most_the_entropy_of_the_classes_and_at_least_0():
    perfect = 50 * torch.eye(8)
    sent = torch.tensor([0, 0, 0, 1])
    assert metrics.entropy(sent) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert metrics.information(perfect[sent], sent).mean().item() == pytest.approx(metrics.entropy(sent))
    assert metrics.information(-perfect[sent], sent).mean().item() == 0
    assert metrics.information(perfect[:4], torch.zeros(4, dtype=torch.long)).mean().item() == 0
    assert metrics.entropy(torch.arange(8)) == pytest.approx(math.log(8))


def test_information_does_not_change_where_all_logits_of_an_image_move_together():
    logits, sent = channel(64, 0.3)
    moved = logits + torch.randn(64, 1, generator=torch.Generator().manual_seed(1))
    terms = (metrics.information(some, sent) for some in (logits, moved))
    assert torch.allclose(*terms, atol=1e-5)


def test_a_paired_difference_has_the_interval_of_the_differences():
    one, other = torch.tensor([3.0, 1.0, 2.0, 2.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    mean, half = metrics.paired_difference(one, other)
    assert mean == 1.5
    assert half == pytest.approx(1.96 * 1.0 / 2)
    assert metrics.paired_difference(one, one) == (0.0, 0.0)
    assert math.isnan(metrics.paired_difference(one[:1], other[:1])[1])


def test_kept_patches_stay_in_place_and_the_rest_is_the_mean_pixel():
    images = torch.arange(1.0, 33.0).reshape(1, 2, 4, 4)
    shares = torch.tensor([[0.1, 0.4, 0.2, 0.3]])  # 2 x 2 patches of 2 x 2 pixels
    top = metrics.keep_patches(images, shares, (2, 2), 0.5, highest=True)
    expected = images.clone()
    expected[:, :, :2, :2] = 0
    expected[:, :, 2:, :2] = 0
    assert torch.equal(top, expected)
    bottom = metrics.keep_patches(images, shares, (2, 2), 0.5, highest=False)
    assert torch.equal(top + bottom, images)
    least = metrics.keep_patches(images, shares, (2, 2), 0.01, highest=False)
    assert torch.equal(least.nonzero().unique(), torch.tensor([0, 1]))
    assert torch.equal(least[:, :, :2, :2], images[:, :, :2, :2])


def test_halves_make_the_whole_image_even_where_all_patches_tie():
    images = torch.ones(3, 1, 8, 8)
    shares = torch.full((3, 16), 1 / 16)
    halves = [metrics.keep_patches(images, shares, (4, 4), 0.5, highest=best) for best in (True, False)]
    assert torch.equal(halves[0] + halves[1], images)


def test_attention_distance_against_a_naive_loop():
    teacher = [random_maps(2, 3, 5, 5, seed=1), random_maps(4, 3, 2, 2, seed=2)]
    student = [random_maps(2, 3, 5, 5, seed=3), random_maps(4, 3, 2, 2, seed=4)]
    expected = []
    for p, q in zip(teacher, student, strict=True):
        width = p.shape[-1]
        excess = [max(a - b, 0) for a, b in zip(p.flatten().tolist(), q.flatten().tolist(), strict=True)]
        rows = [sum(excess[start : start + width]) for start in range(0, len(excess), width)]
        expected.append(sum(rows) / len(rows))
    assert metrics.attention_distance(teacher, student).tolist() == pytest.approx(expected, rel=1e-5)


def test_attention_distance_is_0_for_equal_and_1_for_disjoint_maps():
    one = torch.tensor([1.0, 0.0]).expand(1, 1, 2, 2)
    assert metrics.attention_distance([one], [one]).item() == 0
    assert metrics.attention_distance([one], [one.flip(-1)]).item() == 1


def test_range_ratios_compare_widths_point_by_point():
    ranges = {"wide": (-2.0, 2.0), "narrow": (0.0, 0.2), "constant": (1.0, 1.0), "equal": (0.0, 3.0)}
    real = {"wide": (-1.0, 1.0), "narrow": (-1.0, 1.0), "constant": (5.0, 5.0), "equal": (1.0, 4.0)}
    ratios = metrics.range_ratios(ranges, real)
    assert ratios == pytest.approx({"wide": 2.0, "narrow": 0.1, "constant": 1.0, "equal": 1.0})
    assert metrics.worst_ratio(ratios) == ("narrow", pytest.approx(0.1))
    assert metrics.worst_ratio({"wide": 20.0, "narrow": 0.1}) == ("wide", 20.0)
