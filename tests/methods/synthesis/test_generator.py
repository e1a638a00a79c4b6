"""The conditional generator: its normalization, its shapes, and superposition against a naive loop."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from methods.synthesis.generator import (
    ConditionalBatchNorm,
    ConditionalGenerator,
    Mixture,
    SuperposingGenerator,
    fresh_linear,
    single_classes,
    superposed_classes,
)
from methods.testing.models import seeded

CPU = torch.device("cpu")


def of_one_class(*labels: int, classes: int = 10) -> Mixture:
    column = torch.tensor(labels)[:, None]
    return Mixture.of(column, torch.ones(len(labels), 1), classes)


def generator(shape: tuple[int, int, int], seed: int = 0, **settings) -> ConditionalGenerator:
    return ConditionalGenerator(shape, 10, **{"latent_size": 7, "generator": seeded(seed), **settings})


def test_targets_add_up_shares_of_a_class_that_comes_twice():
    mixture = Mixture.of(torch.tensor([[1, 3, 1]]), torch.tensor([[0.2, 0.5, 0.3]]), 4)
    assert mixture.targets.tolist() == [pytest.approx([0.0, 0.5, 0.0, 0.5])]


def test_only_an_image_of_one_class_has_a_label():
    assert of_one_class(2, 0).single_labels.tolist() == [2, 0]
    assert superposed_classes(3, 10, 2, generator=seeded(), device=CPU).single_labels.tolist() == [-1] * 3


def test_single_classes_are_uniform():
    drawn = single_classes(4000, 10, generator=seeded(), device=CPU)
    counts = torch.bincount(drawn.single_labels, minlength=10)
    assert counts.min() > 320
    assert torch.equal(drawn.targets, F.one_hot(drawn.single_labels, 10).float())


def test_superposed_shares_are_softmaxes_of_normal_numbers():
    drawn = superposed_classes(4000, 10, 3, generator=seeded(), device=CPU)
    assert torch.allclose(drawn.weights.sum(dim=1), torch.ones(4000))
    assert torch.allclose(drawn.targets.sum(dim=1), torch.ones(4000))
    centred = drawn.weights.log() - drawn.weights.log().mean(dim=1, keepdim=True)
    assert centred.std().item() == pytest.approx(math.sqrt(2 / 3), rel=0.03)


@pytest.mark.parametrize("divide_mixed", [False, True])
def test_normalization_applies_the_class_s_own_gain_and_bias(divide_mixed):
    norm = ConditionalBatchNorm(3, 2, eps=0.5, divide_mixed=divide_mixed)
    x = torch.randn(4, 2, 5, 5, generator=seeded())
    plain = F.batch_norm(x, None, None, training=True, eps=0.5)
    mixture = of_one_class(0, 2, 2, 1, classes=3)
    assert torch.allclose(norm(x, mixture), plain)
    with torch.no_grad():
        norm.gains.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        norm.biases.copy_(torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]))
    for image, (gain, bias) in enumerate([((1, 2), (0.1, 0.2)), ((5, 6), (0.5, 0.6))]):
        for channel in range(2):
            expected = gain[channel] * plain[image, channel] + bias[channel]
            assert torch.allclose(norm(x, mixture)[image, channel], expected, atol=1e-6)


@pytest.mark.parametrize(("divide_mixed", "divisor"), [(False, 1), (True, 2)])
def test_a_mixture_s_gain_is_the_weighted_sum_of_its_classes(divide_mixed, divisor):
    norm = ConditionalBatchNorm(3, 1, eps=1e-5, divide_mixed=divide_mixed)
    with torch.no_grad():
        norm.gains.copy_(torch.tensor([[1.0], [10.0], [100.0]]))
        norm.biases.copy_(torch.tensor([[0.0], [1.0], [2.0]]))
    x = torch.randn(1, 1, 6, 6, generator=seeded())
    mixture = Mixture.of(torch.tensor([[2, 0]]), torch.tensor([[0.25, 0.75]]), 3)
    plain = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
    expected = (25.75 * plain + 0.5) / divisor
    assert torch.allclose(norm(x, mixture), expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 32), (3, 30, 17), (2, 5, 9)])
def test_images_have_the_wanted_shape_and_every_channel_is_normalized(shape):
    images = generator(shape)(of_one_class(0, 1, 2, 3), generator=seeded())
    assert images.shape == (4, *shape)
    assert torch.allclose(images.mean(dim=(0, 2, 3)), torch.zeros(shape[0]), atol=1e-5)
    assert torch.allclose(images.var(dim=(0, 2, 3), unbiased=False), torch.ones(shape[0]), atol=0.01)


def test_the_network_is_gdfq_s():
    shapes = {name: tuple(p.shape) for name, p in generator((3, 224, 224)).named_parameters()}
    assert shapes["project.weight"] == (128 * 56 * 56, 7)
    assert shapes["wide.weight"] == (128, 128, 3, 3)
    assert shapes["narrow.weight"] == (64, 128, 3, 3)
    assert shapes["to_pixels.weight"] == (3, 64, 3, 3)
    assert [shapes[f"norms.{i}.gains"] for i in range(3)] == [(10, 128), (10, 128), (10, 64)]


def test_class_and_noise_decide_the_image():
    network = generator((1, 16, 16))
    with torch.no_grad():
        for norm in network.norms:
            norm.gains.copy_(torch.rand(norm.gains.shape, generator=seeded()))
    one, same, noisier = (network(of_one_class(1, 1), generator=seeded(s)) for s in (0, 0, 1))
    other = network(of_one_class(2, 1), generator=seeded(0))
    assert torch.equal(one, same)
    assert not torch.allclose(one, noisier, atol=0.1)
    assert not torch.allclose(one[0], other[0], atol=0.1)


def test_first_weights_come_from_the_given_generator_as_pytorch_starts_them():
    before = torch.get_rng_state()
    layer = fresh_linear(25, 4000, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layer.weight, fresh_linear(25, 4000, generator=seeded()).weight)
    usual = torch.nn.Linear(25, 4000)
    for ours, theirs in ((layer.weight, usual.weight), (layer.bias, usual.bias)):
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.01)
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.03)


def test_superposed_latents_equal_a_naive_loop():
    vectors = torch.randn(10, 6, generator=seeded(5))
    network = SuperposingGenerator((1, 8, 8), vectors, latent_size=3, generator=seeded(), divide_mixed=False)
    mixture = superposed_classes(4, 10, 3, generator=seeded(1), device=CPU)
    noise = torch.randn(4, 3, 6, generator=seeded(2))
    for image, latent in enumerate(network.latent(mixture, generator=seeded(2))):
        total = torch.zeros(3)
        for slot in range(3):
            disturbed = vectors[mixture.labels[image, slot]] + noise[image, slot]
            centred = disturbed - disturbed.mean()
            normalized = centred / (disturbed.var(unbiased=False) + 1e-5).sqrt()
            total += mixture.weights[image, slot] * (network.reduce.weight @ normalized)
        assert torch.allclose(latent, total + network.reduce.bias, atol=1e-5)


def test_class_vectors_are_trained_and_the_given_ones_stay():
    vectors = torch.randn(10, 6, generator=seeded(5))
    network = SuperposingGenerator((1, 8, 8), vectors, latent_size=3, generator=seeded(), divide_mixed=False)
    network(of_one_class(4, 4), generator=seeded()).square()[0].sum().backward()
    touched = network.class_vectors.grad.abs().sum(dim=1) > 0
    assert touched.nonzero().flatten().tolist() == [4]
    with torch.no_grad():
        network.class_vectors += 1
    assert torch.equal(vectors, torch.randn(10, 6, generator=seeded(5)))
