import math

import pytest
import torch

from methods.synthesis import augmentations as augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def delta() -> torch.Tensor:
    """One white pixel at (6, 6) of a 13 x 13 image."""
    images = torch.zeros(1, 1, 13, 13)
    images[..., 6, 6] = 1
    return images


def offset(images: torch.Tensor) -> tuple[int, int]:
    row, column = (images[0, 0] == 1).nonzero()[0].tolist()
    return row - 6, column - 6


def test_rolls_reach_every_shift_within_the_limit_and_none_beyond():
    source = generator()
    seen = {offset(augment.random_roll(delta(), 2, generator=source)) for _ in range(400)}
    assert seen == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def test_rolls_with_the_same_offset_move_along_the_diagonal():
    source = generator()
    drawn = [augment.random_placement(3, generator=source, same_offset=True, flip=False) for _ in range(100)]
    assert {offset(placement.of(delta())) for placement in drawn} == {(s, s) for s in range(-3, 4)}


def test_a_placement_is_a_roll_and_then_a_flip_by_the_same_draws():
    images = torch.randn(2, 3, 5, 9, generator=generator())
    for seed in range(10):
        source = generator(seed)
        stepwise = augment.random_flip(augment.random_roll(images, 2, generator=source), generator=source)
        placement = augment.random_placement(2, generator=generator(seed))
        assert torch.equal(placement.of(images), stepwise)


def test_flips_mirror_about_half_the_time():
    source, images = generator(), torch.arange(4.0).view(1, 1, 1, 4)
    views = [augment.random_flip(images, generator=source).flatten().tolist() for _ in range(200)]
    assert all(view in ([0, 1, 2, 3], [3, 2, 1, 0]) for view in views)
    assert 70 < views.count([3, 2, 1, 0]) < 130


def test_colour_shift_is_one_number_per_channel():
    images = torch.zeros(500, 3, 2, 2)
    shift = augment.random_colour_shift(images, 0.5, generator=generator())
    assert torch.equal(shift.amax((2, 3)), shift.amin((2, 3)))
    assert shift[..., 0, 0].std().item() == pytest.approx(0.5, rel=0.1)


def test_colour_jitter_subtracts_then_divides_within_the_range():
    images = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 1, 3).expand(500, 3, 1, 3)
    low, middle, high = augment.random_colour_jitter(images, generator=generator()).unbind(-1)
    factor = (high - low) / 2
    assert 1 / math.e <= factor.min() < 0.45
    assert 2.2 < factor.max() <= math.e
    shift = -middle / factor
    assert -1 <= shift.min() < -0.95
    assert 0.95 < shift.max() <= 1


def test_jitter_limit_follows_the_image_size():
    assert augment.jitter_limit(30, torch.empty(1, 3, 224, 224)) == 30
    assert augment.jitter_limit(30, torch.empty(1, 3, 112, 224)) == 15
    assert augment.jitter_limit(6, torch.empty(1, 1, 16, 16)) == 1
    assert augment.jitter_limit(0, torch.empty(1, 1, 16, 16)) == 0


def test_a_seed_gives_the_same_view():
    images = torch.randn(2, 3, 8, 8, generator=generator())

    def view(seed: int) -> torch.Tensor:
        source = generator(seed)
        rolled = augment.random_roll(images, 3, generator=source)
        return augment.random_colour_jitter(rolled, generator=source)

    assert torch.equal(view(1), view(1))
    assert not torch.equal(view(1), view(2))
