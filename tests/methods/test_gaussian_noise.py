"""Gaussian noise: standard normal numbers without labels."""

from __future__ import annotations

import pytest

from methods.base import SynthesisTask
from methods.testing.models import DIGITS_MODELS, seeded, synthesizer, untrained


@pytest.mark.parametrize("name", DIGITS_MODELS)
def test_noise_is_standard_normal(name):
    made = synthesizer("gaussian_noise", images=64).synthesize(SynthesisTask(untrained(name), seeded()))
    assert made.images.shape == (64, 1, 16, 16)
    assert made.images.mean().item() == pytest.approx(0, abs=0.03)
    assert made.images.std().item() == pytest.approx(1, abs=0.03)
    assert made.labels.tolist() == [-1] * 64
