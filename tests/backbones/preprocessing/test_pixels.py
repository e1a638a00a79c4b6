"""Pixels and normalized space, forth and back."""

import re
from pathlib import Path

import pytest
import torch

from backbones.base import DataConfig
from backbones.preprocessing.pixels import denormalized, normalized, pixel_range

DATA = DataConfig(input_size=(3, 1, 2), mean=(0.2, 0.4, 0.0), std=(0.2, 0.5, 1.0))


@pytest.mark.parametrize("as_bytes", [False, True])
def test_each_channel_has_its_mean_and_deviation(as_bytes):
    pixels = torch.tensor([[[0.2, 0.4]], [[0.4, 1.0]], [[0.0, 1.0]]])
    expected = torch.tensor([[[0.0, 1.0]], [[0.0, 1.2]], [[0.0, 1.0]]])
    given = (pixels * 255).round().to(torch.uint8) if as_bytes else pixels
    torch.testing.assert_close(normalized(given, DATA), expected)
    torch.testing.assert_close(normalized(given.expand(4, 3, 1, 2), DATA), expected.expand(4, 3, 1, 2))


def test_denormalized_is_the_inverse():
    pixels = torch.rand(4, 3, 1, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(denormalized(normalized(pixels, DATA), DATA), pixels)


def test_the_pixel_range_goes_from_black_to_white():
    low, high = pixel_range(DATA, torch.device("cpu"))
    assert torch.equal(low, normalized(torch.zeros(3, 1, 1), DATA))
    assert torch.equal(high, normalized(torch.ones(3, 1, 1), DATA))


def test_no_other_module_reads_a_models_mean_and_deviation():
    """Whoever writes `data.mean` outside `pixels` normalizes by hand."""
    root = Path(__file__).resolve().parents[3]
    readers = [
        str(file.relative_to(root))
        for package in ("backbones", "harness", "methods", "tasks", "results")
        for file in sorted((root / package).rglob("*.py"))
        if re.search(r"\bdata\.(mean|std)\b", file.read_text())
    ]
    assert readers == ["backbones/preprocessing/pixels.py"]
