import math

import pytest
import torch

from methods.synthesis.frequency import filtered, ring


def wave(height: int, width: int, down: int, right: int) -> torch.Tensor:
    """0.5 + 0.3 cos of `down` x `right` cycles per image."""
    y = torch.arange(height, dtype=torch.float64).unsqueeze(1) / height
    x = torch.arange(width, dtype=torch.float64) / width
    return 0.5 + 0.3 * torch.cos(2 * math.pi * (down * y + right * x))


@pytest.mark.parametrize("size", [(16, 16), (24, 16), (15, 17), (224, 224)])
def test_a_ring_holds_the_frequencies_between_its_radii(size):
    height, width = size
    found = ring(height, width, 0.7, 0.3)
    assert found.shape == (height, width // 2 + 1)
    for row in range(0, height, 5):
        cycles = row if row <= height // 2 else row - height
        for column in range(0, width // 2 + 1, 3):
            radius = math.hypot(2 * cycles / height, 2 * column / width)
            assert found[row, column] == (0.3 - 1e-6 <= radius <= 0.7 + 1e-6)


def test_radii_on_the_rim_belong_to_the_ring():
    # 3 and 4 cycles of 16 pixels are 3/8 and 4/8 of the highest frequency: together 5/8.
    assert ring(16, 16, 0.625)[3, 4]
    assert ring(16, 16, 1.0, 0.625)[3, 4]
    assert not ring(16, 16, 0.62)[3, 4]


@pytest.mark.parametrize(("down", "right"), [(3, 0), (0, 3), (2, 2), (-2, 2)])
def test_a_wave_passes_only_a_filter_that_holds_it(down, right):
    image = wave(16, 16, down, right)
    radius = math.hypot(down, right) / 8
    torch.testing.assert_close(filtered(image, ring(16, 16, radius + 0.05)), image)
    mean_alone = filtered(image, ring(16, 16, radius - 0.05))
    torch.testing.assert_close(mean_alone, torch.full_like(image, 0.5))
    around = filtered(image, ring(16, 16, radius + 0.05, radius - 0.05))
    torch.testing.assert_close(around, (image - 0.5).abs())
    beyond = filtered(image, ring(16, 16, 1.0, radius + 0.05))
    torch.testing.assert_close(beyond, torch.zeros_like(image), atol=1e-12, rtol=0)


def test_a_filter_of_everything_changes_nothing():
    image = torch.rand(2, 3, 15, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(filtered(image, ring(15, 17, 2.0)), image)


def test_filters_agree_with_a_full_complex_transform():
    image = torch.rand(2, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    down, right = torch.fft.fftfreq(12) * 2, torch.fft.fftfreq(10) * 2
    radius = torch.hypot(down.unsqueeze(1), right)
    whole = torch.fft.ifft2(torch.fft.fft2(image) * ((radius >= 0.3) & (radius <= 0.8))).abs()
    torch.testing.assert_close(filtered(image, ring(12, 10, 0.8, 0.3)), whole)


def test_the_filter_s_derivative():
    image = torch.rand(1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: filtered(x, ring(6, 6, 0.7)), image.requires_grad_())
