from __future__ import annotations

import copy

import pytest
import torch

from backbones import SPECS, find_weights, load_backbone
from backbones.families.explicit import AttentionTaps
from harness.analysis.measuring import activation_ranges, measure_images, measure_student, shares_of


@pytest.fixture(scope="module", params=["digits_vit", "digits_swin"])
def teacher(request):
    return load_backbone(request.param, find_weights(SPECS[request.param]))


def noise(teacher, count: int = 5) -> torch.Tensor:
    return torch.randn(count, *teacher.data.input_size, generator=torch.Generator().manual_seed(0))


def test_shares_cover_every_patch_of_the_image(teacher):
    with AttentionTaps(teacher.model, maps=True) as taps, torch.no_grad():
        teacher.model(noise(teacher))
    shares = shares_of(teacher, taps.maps)
    rows, columns = teacher.patch_grid
    assert shares.shape == (5, rows * columns)
    assert torch.allclose(shares.sum(dim=1), torch.ones(5))
    assert shares.min() > 0


def test_the_teacher_as_its_own_student_loses_nothing(teacher):
    found = measure_student(teacher, copy.deepcopy(teacher.model), noise(teacher), 2)
    assert found.mean_distance == 0
    whole = found.agreements[0]
    assert (whole.patches, whole.agreement_percent) == ("all", 100.0)
    assert whole.kl == pytest.approx(0, abs=1e-6)
    assert all(part.kl > 1e-3 for part in found.agreements[1:])


def test_batches_do_not_matter(teacher):
    student = copy.deepcopy(teacher.model)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.05)
    images = noise(teacher)
    whole, parts = (measure_student(teacher, student, images, size) for size in (5, 2))
    assert whole.attention_distance == pytest.approx(parts.attention_distance, rel=1e-4)
    assert whole.mean_distance > 0
    for one, other in zip(whole.agreements, parts.agreements, strict=True):
        assert one == (*other[:3], pytest.approx(other.kl, rel=1e-3))
    one, other = (measure_images(teacher, images, size) for size in (5, 2))
    assert one.curve == pytest.approx(other.curve, rel=1e-5)


def test_an_unusable_student_has_no_divergence(teacher):
    student = copy.deepcopy(teacher.model)
    with torch.no_grad():
        next(p for name, p in student.named_parameters() if "head" in name).fill_(float("nan"))
    found = measure_student(teacher, student, noise(teacher), 5)
    assert (found.agreements[0].agreement_percent, found.agreements[0].kl) == (0.0, None)


def test_ranges_are_those_of_the_full_precision_activations(teacher):
    images = noise(teacher)
    ranges = activation_ranges(teacher, images, 2)
    logits = teacher.model(images)
    assert next(iter(ranges)) == "input"
    assert ranges["input"] == (images.min().item(), images.max().item())
    assert ranges["head"] == pytest.approx((logits.min().item(), logits.max().item()), rel=1e-4)
    seen = []
    handle = dict(teacher.model.named_modules())["patch_embed"].register_forward_hook(
        lambda module, arguments, output: seen.append(output)
    )
    teacher.model(images)
    handle.remove()
    assert ranges["patch_embed"] == pytest.approx((seen[0].min().item(), seen[0].max().item()), rel=1e-5)
