"""D4C: boxes and their backgrounds, the contrast by hand, and what optimisation does."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from methods import configure
from methods.base import SynthesisTask
from methods.d4c import D4c, D4cConfig, D4cObjective, contrastive_loss, squared_variation
from methods.synthesis.boxes import Boxes, augmented
from methods.synthesis.loop import Batch
from methods.testing.models import DIGITS_MODELS, blobs, seeded, tiny

CPU = torch.device("cpu")


def test_boxes_hold_40_to_70_percent_of_the_area_and_lie_inside():
    boxes = Boxes.draw(500, CPU, generator=seeded())
    assert ((boxes.side**2 >= 0.4) & (boxes.side**2 <= 0.7)).all()
    assert (boxes.side**2).mean().item() == pytest.approx(0.55, abs=0.02)
    for centre in (boxes.x, boxes.y):
        assert (centre.abs() + boxes.side <= 1 + 1e-6).all()
        assert centre.abs().max() > 0.2


def test_a_foreground_is_the_box_and_a_background_the_rest_with_noise():
    ramp = ((torch.arange(16) + 0.5) / 8 - 1).expand(1, 1, 16, 16)
    boxes = Boxes(torch.tensor([0.5]), torch.tensor([0.25]), torch.tensor([0.0]))
    foreground = boxes.foreground(ramp)
    torch.testing.assert_close(foreground, 0.25 + 0.5 * ramp)
    background = boxes.background(torch.full((1, 1, 16, 16), 5.0), generator=seeded())[0, 0]
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[4:12, 6:14] = True
    assert background[inside].abs().max() < 1
    assert (background[~inside] - 5).abs().max() < 1
    assert background[inside].std().item() == pytest.approx(0.1, rel=0.3)


def test_the_contrast_by_hand():
    """Class 0 lies on the feature (cosine 1), class 1 across it (0), the background opposite (-1)."""
    axes = torch.eye(2)
    found = contrastive_loss(axes[:1], axes, -axes[:1], torch.tensor([0]), temperature=0.5)
    expected = math.log(math.exp(2) + 1 + math.exp(-2)) - 2
    assert found.item() == pytest.approx(expected)
    without = contrastive_loss(axes[:1], axes, None, torch.tensor([0]), temperature=0.5)
    assert without.item() == pytest.approx(math.log(math.exp(2) + 1) - 2)


def test_the_variation_by_hand():
    assert squared_variation(torch.tensor([[[[0.0, 2.0], [0.0, 2.0]]]])).item() == 4.0


def test_augmentation_differs_by_image_and_keeps_shape_and_gradient():
    images = blobs(1).expand(6, 1, 16, 16).clone().requires_grad_(True)
    view = augmented(images, generator=seeded())
    assert view.shape == images.shape
    assert all(not torch.equal(view[0], other) for other in view[1:])
    view.sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("name", DIGITS_MODELS)
def test_boxes_come_to_look_like_their_class_and_unlike_backgrounds(name):
    config = configure(D4cConfig, "smoke", {"images": 4, "iterations": 40, "learning_rate": 0.05})
    told = []
    made = D4c(config).synthesize(
        SynthesisTask(tiny(name), seeded(), lambda step, total, losses: told.append(losses["contrast"]))
    )
    assert told[-1] < 0.8 * told[0]
    plain = D4cObjective(D4cConfig(augment=False), Batch(tiny(name), made.labels, seeded()))
    with torch.no_grad():
        features = plain._features(made.images)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("name", DIGITS_MODELS)
def test_cosines_to_classifier_weights_decide_mostly_as_the_logits_do(name):
    """The port's premise, on images of the trained models' kind of contrast."""
    model = tiny(name).model
    objective = D4cObjective(D4cConfig(), Batch(tiny(name), torch.arange(4), seeded()))
    images = blobs(32)
    with torch.no_grad():
        cosines = objective._features(images) @ F.normalize(model.get_classifier().weight, dim=-1).T
        same = (cosines.argmax(-1) == model(images).argmax(-1)).float().mean()
    assert same > 0.7


@pytest.mark.parametrize("settings", [{"contrast": False}, {"augment": False}])
def test_parts_can_be_turned_off(settings):
    batch = [Batch(tiny("digits_vit"), torch.arange(4), seeded()) for _ in range(2)]
    images = blobs(4)
    on, off = (
        D4cObjective(D4cConfig(**changed), one).losses(images, images, 0)["contrast"]
        for changed, one in zip(({}, settings), batch, strict=True)
    )
    assert on != off
