"""The training view: shapes, shared parameters, determinism, and the blur against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import functional as pixels

from backbones import SPECS, Backbone
from methods.engines.augmentation import (
    colour_jitter,
    gaussian_blur,
    random_resized_crop,
    training_view,
)
from methods.testing.models import blobs, tiny


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def colour_images(count: int, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=seeded(0))


COLOUR = Backbone(SPECS["deit_tiny"], torch.nn.Identity(), "x")


@pytest.mark.parametrize("seed", range(12))
def test_a_view_keeps_the_shape_is_finite_and_repeats_itself(seed):
    for teacher, images in ((tiny("digits_vit"), blobs(3)), (COLOUR, colour_images(2, 40))):
        views = [
            training_view(images, teacher, crop_scale_min=0.08, generator=seeded(seed)) for _ in range(2)
        ]
        assert views[0].shape == images.shape
        assert views[0].isfinite().all()
        assert torch.equal(*views)


def test_views_differ_from_draw_to_draw_and_leave_global_randomness_alone():
    state = torch.get_rng_state()
    generator = seeded(0)
    first, second = (
        training_view(blobs(2), tiny("digits_vit"), crop_scale_min=0.08, generator=generator) for _ in "ab"
    )
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("seed", range(6))
def test_all_images_of_a_batch_share_the_parameters(seed):
    images = colour_images(2)
    together = training_view(images, COLOUR, crop_scale_min=0.08, generator=seeded(seed))
    alone = training_view(images[1:], COLOUR, crop_scale_min=0.08, generator=seeded(seed))
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


def test_a_crop_of_the_whole_image_share_changes_only_the_aspect():
    images = colour_images(1)
    whole = [random_resized_crop(images, 1.0, generator=seeded(seed)) for seed in range(20)]
    small = [random_resized_crop(images, 0.08, generator=seeded(seed)) for seed in range(20)]
    # A crop of the whole area fits only square, so nothing is left to choose but the image itself.
    assert all(torch.allclose(crop, images, atol=1e-6) for crop in whole)
    assert not any(torch.allclose(crop, images, atol=1e-2) for crop in small)


def test_crops_come_from_inside_the_image():
    # Values that grow to the right and downwards: every crop must keep that order and its extremes.
    ramp = torch.arange(16.0).view(1, 1, 1, 16) + 100 * torch.arange(16.0).view(1, 1, 16, 1)
    for seed in range(30):
        crop = random_resized_crop(ramp, 0.08, generator=seeded(seed))
        assert crop.diff(dim=-1).min() >= -1e-3
        assert crop.diff(dim=-2).min() >= -1e-3
        assert ramp.min() <= crop.min()
        assert crop.max() <= ramp.max()


@pytest.mark.parametrize("seed", range(8))
def test_colour_jitter_stays_in_the_pixel_range(seed):
    for images in (colour_images(2), colour_images(2)[:, :1]):
        jittered = colour_jitter(images, generator=seeded(seed))
        assert jittered.min() >= 0
        assert jittered.max() <= 1
        assert not torch.allclose(jittered, images, atol=1e-3)


@pytest.mark.parametrize(("taps", "sigma"), [(23, 1.3), (5, 0.4), (3, 0.01)])
def test_blur_equals_torchvisions(taps, sigma):
    images = colour_images(2)
    expected = pixels.gaussian_blur(images, [taps, taps], [sigma, sigma])
    torch.testing.assert_close(gaussian_blur(images, taps, sigma), expected, rtol=1e-4, atol=1e-5)
