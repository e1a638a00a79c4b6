"""Normalisation of pixels."""

import pytest
import torch

from backbones.base import DataConfig
from backbones.preprocessing.pixels import normalized

DATA = DataConfig(input_size=(3, 1, 2), mean=(0.2, 0.4, 0.0), std=(0.2, 0.5, 1.0))


@pytest.mark.parametrize("as_bytes", [False, True])
def test_each_channel_has_its_mean_and_deviation(as_bytes):
    pixels = torch.tensor([[[0.2, 0.4]], [[0.4, 1.0]], [[0.0, 1.0]]])
    expected = torch.tensor([[[0.0, 1.0]], [[0.0, 1.2]], [[0.0, 1.0]]])
    given = (pixels * 255).round().to(torch.uint8) if as_bytes else pixels
    torch.testing.assert_close(normalized(given, DATA), expected)
    torch.testing.assert_close(normalized(given.expand(4, 3, 1, 2), DATA), expected.expand(4, 3, 1, 2))
