"""Real images: the first of those given, with their labels; too few are refused."""

from __future__ import annotations

import pytest
import torch

from backbones import Backbone
from methods.base import SynthesisTask
from methods.testing.models import DIGITS_MODELS, seeded, synthesizer, untrained


@pytest.fixture(scope="module", params=DIGITS_MODELS)
def teacher(request) -> Backbone:
    return untrained(request.param)


def test_hands_on_the_first_images(teacher):
    given = (torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 16, 16), torch.arange(6))
    made = synthesizer("real_data").synthesize(SynthesisTask(teacher, generator=seeded(), real_images=given))
    assert torch.equal(made.images, given[0][:4])
    assert made.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("given", [None, (torch.zeros(3, 1, 16, 16), torch.zeros(3))])
def test_says_how_many_images_are_missing(teacher, given):
    count = 0 if given is None else 3
    with pytest.raises(ValueError, match=f"needs 4 real images and was given {count}"):
        synthesizer("real_data").synthesize(SynthesisTask(teacher, generator=seeded(), real_images=given))
