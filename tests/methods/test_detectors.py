"""Methods on detectors: every prior on images that are not square, targets, and whole sets of images."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from backbones import Backbone
from backbones.base import FAMILIES
from backbones.families.explicit import AttentionTaps
from backbones.families.registry import family_names, get_family
from methods import get_method, method_names
from methods.base import SynthesisTask
from methods.psaq_vit import PsaqVitConfig, PsaqVitObjective
from methods.synthesis.attention_priors import (
    gaussian_patch_entropy,
    head_ssim_loss,
    informative_mask,
    masked_alignment,
    patch_attention,
)
from methods.synthesis.loop import Batch, ImageOptimizer
from methods.synthesis.patch_similarity import patch_similarity_entropy
from methods.testing.detectors import detector, pictures
from methods.testing.models import disturbed, seeded, synthesizer

DETECTORS = {name for name in family_names() if get_family(name).detects}
SUPPORTED = {name: get_method(name).synthesizer.families for name in method_names() if name != "fp32"}
ON_DETECTORS = [name for name, families in SUPPORTED.items() if families & DETECTORS]
OPTIMISERS = [name for name in ON_DETECTORS if issubclass(get_method(name).synthesizer, ImageOptimizer)]


def test_a_method_for_detectors_is_for_every_family():
    assert {"gaussian_noise", "real_data", "maskaq"} <= set(ON_DETECTORS)
    assert all(SUPPORTED[name] == FAMILIES for name in ON_DETECTORS)


def test_methods_that_need_one_class_an_image_are_not_for_detectors():
    of_classes = {"clamp_vit", "sardfq", "smi", "fdd", "gdfq", "qimera", "adadfq"}
    assert not of_classes & set(ON_DETECTORS)


def tapped(teacher: Backbone, images: torch.Tensor, **wanted: bool) -> AttentionTaps:
    with AttentionTaps(teacher.model, **wanted) as taps:
        teacher.model(images)
    return taps


@pytest.mark.parametrize(
    ("family", "tokens"),
    # YOLOS: CLS, 5 detection tokens and 4 x 6 patches. Swin: windows of 7 x 7, padded in every stage.
    [
        ("yolos", [(2, 30)] * 2),
        ("mask_rcnn", [(2 * 3 * 4, 49), (2 * 2 * 2, 49), (2 * 2 * 2, 49), (2, 49), (2, 49)]),
    ],
)
def test_every_prior_is_finite_and_moves_the_image_where_it_is_not_square(family, tokens):
    teacher = detector(family)
    prefix = teacher.prefix_tokens
    images = pictures(teacher, 2).requires_grad_()
    taps = tapped(teacher, images, logits=True, outputs=True)
    assert [(len(layer), layer.shape[-1]) for layer in taps.logits] == tokens
    student = disturbed(teacher).requires_grad_(False)
    with AttentionTaps(student, logits=True) as seen:
        student(images)
    mask = informative_mask(patch_attention(taps.logits[0], prefix_tokens=prefix), 0.3)
    assert mask.shape == (tokens[0][0], tokens[0][1] - prefix)
    priors = {
        "head similarity": [head_ssim_loss(layer, prefix_tokens=prefix) for layer in taps.logits],
        "row entropy": [gaussian_patch_entropy(layer, prefix_tokens=prefix) for layer in taps.logits],
        "patch entropy": [patch_similarity_entropy(x, 2, skip_tokens=prefix) for x in taps.outputs],
        "alignment": [
            masked_alignment(
                patch_attention(taps.logits[0], prefix_tokens=prefix),
                patch_attention(seen.logits[0], prefix_tokens=prefix),
                mask,
            )
        ],
    }
    for name, values in priors.items():
        (gradient,) = torch.autograd.grad(torch.stack(values).sum(), images, retain_graph=True)
        assert gradient.isfinite().all(), name
        assert gradient.abs().sum() > 0, name


def test_patch_attention_is_the_mean_over_cls_and_detection_tokens():
    logits = torch.randn(2, 3, 7, 7, generator=seeded())
    expected = logits[:, :, [0, 1, 2], 3:].sum(dim=(1, 2)) / 9
    torch.testing.assert_close(patch_attention(logits, prefix_tokens=3), expected)
    assert torch.equal(patch_attention(logits, prefix_tokens=1), logits[:, :, 0, 1:].mean(dim=1))


@pytest.mark.parametrize("family", ["yolos", "mask_rcnn"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_targets_guide_the_images_of_a_detector_that_answers_for_them(name, family):
    teacher = detector(family)
    settings = {"iterations": 2, "images": 2, "batch_size": 2}
    made = synthesizer(name, **settings).synthesize(SynthesisTask(teacher, seeded(1)))
    assert made.labels.shape == ((2, 6, 5) if family == "yolos" else (2,))
    wanted = "one_hot" in made.final_losses
    assert wanted == (name != "psaq_vit_v2")
    assert not wanted or (made.final_losses["one_hot"] == 0) == (family == "mask_rcnn")


@pytest.mark.parametrize("family", ["yolos", "mask_rcnn"])
def test_noise_is_made_for_nothing_and_real_images_keep_their_labels(family):
    teacher = detector(family)
    noise = synthesizer("gaussian_noise").synthesize(SynthesisTask(teacher, generator=seeded()))
    assert noise.images.shape == (4, *teacher.data.input_size)
    assert (noise.labels == -1).all()
    assert noise.labels.shape == teacher.guidance.draw(4, generator=seeded()).shape
    real = pictures(teacher, 4), teacher.guidance.draw(4, generator=seeded())
    kept = synthesizer("real_data").synthesize(SynthesisTask(teacher, generator=seeded(), real_images=real))
    assert torch.equal(kept.labels, real[1])


@pytest.mark.parametrize("make", ["psaq_vit", "mimiq"])
def test_targets_follow_every_view(make):
    """A teacher that sees one white pixel is asked for a box around it, wherever a view puts that pixel."""
    teacher = detector("yolos")
    targets = teacher.guidance.nothing(1)
    targets[0, 0] = torch.tensor([0, (20 + 0.5) / 48, (12 + 0.5) / 32, 0.02, 0.02])
    images = torch.zeros(1, 1, 32, 48)
    images[0, 0, 12, 20] = 1
    maker = synthesizer(make, iterations=40, **({"flip": True} if make == "mimiq" else {}))
    objective = maker.Objective(maker.config, Batch(teacher, targets, seeded()))
    places = set()
    for iteration in range(40):
        view = objective.view(images, iteration)[0, 0]
        row, column = divmod(int((view - view[0, 0]).abs().argmax()), 48)
        _, x, y, _, _ = objective.targets[0, 0].tolist()
        assert (x * 48 - 0.5, y * 32 - 0.5) == pytest.approx((column, row), abs=1e-3)
        places.add((row, column))
    assert len(places) > 4


def test_images_come_to_show_the_objects_they_are_made_for():
    teacher = detector("yolos")
    alone = {
        "head_weight": 0,
        "variation_weight": 0,
        "colour_noise": 0,
        "learning_rate": 0.1,
        "iterations": 60,
    }
    made = synthesizer("mimiq", **alone).synthesize(SynthesisTask(teacher, generator=seeded()))
    noise = synthesizer("gaussian_noise").synthesize(SynthesisTask(teacher, generator=seeded(1)))
    shown, before = (
        teacher.guidance.loss(teacher.model(images), made.labels) for images in (made.images, noise.images)
    )
    assert shown < 0.9 * before


def test_the_swin_of_a_detector_has_swin_s_rate_and_keeps_its_first_patches():
    config = PsaqVitConfig(iterations=4)
    rates = {
        family: PsaqVitObjective(
            config, Batch(detector(family), detector(family).guidance.nothing(2), seeded())
        ).learning_rate(1)
        for family in ("yolos", "mask_rcnn")
    }
    assert rates["mask_rcnn"] == pytest.approx(1.25 * rates["yolos"])


def test_the_student_of_a_mask_r_cnn_that_finds_nothing_can_be_compared():
    teacher = detector("mask_rcnn", finds=False)
    outputs = teacher.model(pictures(teacher, 2))
    assert [len(found.scores) for found in teacher.model.detections(outputs)] == [0, 0]
    student: nn.Module = copy.deepcopy(teacher.model)
    assert teacher.guidance.disagreement(outputs, student(pictures(teacher, 2))) == 0
