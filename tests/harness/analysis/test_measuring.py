from __future__ import annotations

import copy

import pytest
import torch

from backbones import SPECS, find_weights, load_backbone
from backbones.families.explicit import AttentionTaps
from backbones.preprocessing.pixels import normalized
from backbones.preprocessing.transforms import read_image
from harness.analysis import metrics
from harness.analysis.measuring import (
    KEPT_SHARES,
    WHOLE,
    View,
    activation_ranges,
    attention_of,
    measure_images,
    measure_student,
    shares_of,
)
from tasks.imagenet import ImageNet


@pytest.fixture(scope="module", params=["digits_vit", "digits_swin"])
def teacher(request):
    return load_backbone(request.param, find_weights(SPECS[request.param]))


def noise(teacher, count: int = 5) -> torch.Tensor:
    return torch.randn(count, *teacher.data.input_size, generator=torch.Generator().manual_seed(0))


def test_shares_cover_every_patch_of_the_image(teacher):
    with AttentionTaps(teacher.model, maps=True) as taps, torch.no_grad():
        teacher.model(noise(teacher))
    layers = attention_of(teacher, taps.maps)
    rows, columns = teacher.patch_grid
    assert [layer.shape[1] for layer in layers] == [maps.shape[1] for maps in taps.maps]
    assert {layer.shape[2] for layer in layers} == {rows * columns}
    shares = shares_of(layers)
    assert shares.shape == (5, rows * columns)
    assert torch.allclose(shares.sum(dim=1), torch.ones(5))
    assert shares.min() > 0


def test_the_teacher_as_its_own_student_loses_nothing(teacher):
    images = noise(teacher)
    found = measure_student(teacher, copy.deepcopy(teacher.model), images, 2)
    assert found.mean_distance == 0
    answers = found.dependence.answers
    assert answers[WHOLE].agreement_percent == 100.0
    assert answers[WHOLE].kl == pytest.approx(0, abs=1e-6)
    assert set(answers) == {
        WHOLE, *(View(kept, patches) for kept in KEPT_SHARES for patches in ("top", "random", "bottom"))
    }  # fmt: skip
    assert all(part.kl > 1e-3 for view, part in answers.items() if view != WHOLE)
    assert measure_images(teacher, images, 2).dependence == found.dependence


def test_margins_are_the_differences_of_the_agreements(teacher):
    dependence = measure_images(teacher, noise(teacher, 12), 12).dependence
    assert [(margin.kept, margin.over) for margin in dependence.margins] == [
        (kept, over) for kept in KEPT_SHARES for over in ("random", "bottom")
    ]
    for margin in dependence.margins:
        top, others = (
            dependence.answers[View(margin.kept, patches)].agreement_percent
            for patches in ("top", margin.over)
        )
        assert margin.points == pytest.approx(top - others)
    assert any(margin.interval > 0 for margin in dependence.margins)


def test_information_is_at_most_the_entropy_of_the_teachers_answers(teacher):
    found = measure_images(teacher, noise(teacher, 12), 5)
    assert found.entropy > 0.2
    for answers in found.dependence.answers.values():
        assert 0 <= answers.information <= found.entropy + 1e-6


def test_batches_do_not_matter(teacher):
    student = copy.deepcopy(teacher.model)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.05)
    images = noise(teacher)
    whole, parts = (measure_student(teacher, student, images, size) for size in (5, 2))
    assert whole.attention_distance == pytest.approx(parts.attention_distance, rel=1e-4)
    assert whole.mean_distance > 0
    assert whole.dependence.margins == parts.dependence.margins
    for view, one in whole.dependence.answers.items():
        other = parts.dependence.answers[view]
        assert one == (
            other.agreement_percent,
            *(pytest.approx(value, rel=1e-3, abs=1e-5) for value in other[1:]),
        )
    one, other = (measure_images(teacher, images, size) for size in (5, 2))
    assert one.curve == pytest.approx(other.curve, rel=1e-5)
    assert one.layers == pytest.approx(other.layers, rel=1e-5)
    assert [len(heads) for heads in one.heads] == [len(heads) for heads in other.heads]


def test_a_head_on_few_patches_is_seen_though_the_heads_together_look_everywhere():
    """Each head looks at one patch of its own: alone they hold everything, averaged they are spread."""
    teacher = load_backbone("digits_vit", find_weights(SPECS["digits_vit"]))
    patches, heads = 64, 4
    maps = torch.zeros(2, heads, patches + 1, patches + 1)
    for head in range(heads):
        maps[:, head, :, 1 + head] = 1.0
    (layer,) = attention_of(teacher, [maps])
    assert metrics.concentration(layer, 1 / patches).tolist() == [1.0] * heads
    assert metrics.mass_curve(shares_of([layer]))[0].item() == pytest.approx(1 / heads)


def test_an_unusable_student_has_no_divergence(teacher):
    student = copy.deepcopy(teacher.model)
    with torch.no_grad():
        next(p for name, p in student.named_parameters() if "head" in name).fill_(float("nan"))
    found = measure_student(teacher, student, noise(teacher), 5)
    assert found.dependence.answers[WHOLE] == (0.0, None, None)


@pytest.mark.shared
@pytest.mark.slow
def test_heads_of_a_real_model_tell_real_images_from_noise_where_averages_do_not(shared_data):
    """96 images, 12 layers of 3 heads; the first in the folder's order, others are less concentrated."""
    teacher = load_backbone("deit_tiny", shared_data / "weights" / "deit_tiny_patch16_224.safetensors")
    samples = ImageNet(shared_data / "imagenet_sample").samples("report")[:96]
    pixels = torch.stack([read_image(sample.path, teacher.data)[0] for sample in samples])
    real = normalized(pixels, teacher.data)
    found = {}
    for name, images in (("real", real), ("noise", noise(teacher, 96))):
        shares, last = [], []
        for batch in images.split(16):
            with AttentionTaps(teacher.model, maps=True) as taps, torch.inference_mode():
                teacher.model(batch)
            layers = attention_of(teacher, taps.maps)
            shares.append(shares_of(layers))
            last.append(metrics.concentration(layers[-1], 0.1).mean())
        averaged = metrics.mass_of(metrics.mass_curve(torch.cat(shares)), 0.1)
        found[name] = (averaged, torch.stack(last).mean().item())
    assert found["real"] == pytest.approx((0.272, 0.658), abs=0.005)
    assert found["noise"] == pytest.approx((0.276, 0.343), abs=0.005)


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
