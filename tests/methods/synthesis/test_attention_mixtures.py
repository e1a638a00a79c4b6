import pytest
import torch

from methods.synthesis.attention_mixtures import mixture_loss, random_mixtures, received_attention


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("grid", [(14, 14), (8, 8), (4, 4), (7, 5)])
def test_mixtures_are_distributions_over_the_grid(grid):
    mixtures = random_mixtures((6, 3), grid, components=5, generator=seeded())
    assert mixtures.shape == (6, 3, grid[0] * grid[1])
    assert mixtures.isfinite().all()
    assert (mixtures >= 0).all()
    torch.testing.assert_close(mixtures.sum(dim=-1), torch.ones(6, 3))


def test_mixtures_differ_between_heads_and_images_and_follow_the_seed():
    first, again, other = (
        random_mixtures((4, 3), (8, 8), components=5, generator=seeded(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.flatten(0, 1).unique(dim=0)) == 12


def test_one_component_is_one_round_gaussian_of_the_wanted_width():
    mixtures = random_mixtures((200,), (14, 14), components=1, generator=seeded()).double()
    logs = mixtures.unflatten(1, (14, 14)).log()
    # Along either axis the logarithm of a Gaussian bends by -1 / variance from cell to cell.
    around = logs[:, 5:9, 5:9]
    for bend in (around.diff(n=2, dim=1), around.diff(n=2, dim=2)):
        widths = (-1 / bend).sqrt()
        usable = mixtures.unflatten(1, (14, 14))[:, 5:9, 5:9].amin(dim=(1, 2)) > 1e-8
        found = widths[usable].flatten(1).median(dim=1).values
        assert len(found) > 30
        assert 1 - 1e-2 < found.min() < 1.5
        assert 2.5 < found.max() < 3 + 1e-2


def test_centres_reach_the_whole_grid():
    mixtures = random_mixtures((2000,), (6, 6), components=1, generator=seeded())
    assert len(mixtures.argmax(dim=1).unique()) == 36


def test_more_components_make_more_peaks():
    def peaks(components: int) -> float:
        maps = random_mixtures((200,), (28, 28), components=components, generator=seeded())
        maps = maps.unflatten(1, (1, 28, 28))
        highest = torch.nn.functional.max_pool2d(maps, 3, stride=1, padding=1)
        return ((maps == highest) & (maps > 1e-6)).sum().item() / 200

    assert peaks(1) == pytest.approx(1, abs=0.05)
    assert peaks(5) > 1.5


def test_received_attention_is_the_row_of_cls_or_the_mean_of_all():
    maps = torch.rand(2, 3, 5, 5, generator=seeded()).softmax(dim=-1)
    from_cls = received_attention(maps, prefix_tokens=1)
    from_all = received_attention(maps, prefix_tokens=0)
    assert torch.equal(from_cls[1, 2], maps[1, 2, 0, 1:])
    for key in range(5):
        assert from_all[1, 2, key].item() == pytest.approx(
            sum(maps[1, 2, q, key].item() for q in range(5)) / 5
        )


def test_the_loss_is_the_mean_square_to_the_scaled_mixture():
    attention = torch.tensor([[[0.1, 0.3, 0.2]]])
    mixture = torch.tensor([[[0.5, 0.25, 0.25]]])  # times the mass 0.6: 0.3, 0.15, 0.15
    expected = (0.2**2 + 0.15**2 + 0.05**2) / 3
    assert mixture_loss(attention, mixture).item() == pytest.approx(expected)
    assert mixture_loss(0.6 * mixture, mixture) == 0


def test_the_loss_does_not_pull_on_the_mass():
    attention = torch.tensor([[[0.1, 0.3]]], requires_grad=True)
    mixture = torch.tensor([[[0.5, 0.5]]])
    mixture_loss(attention, mixture).backward()
    # d/da of ((a0 - 0.2)^2 + (a1 - 0.2)^2) / 2 with 0.2 held fast
    torch.testing.assert_close(attention.grad, torch.tensor([[[-0.1, 0.1]]]))
