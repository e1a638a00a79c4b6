"""The training loop of generators: what it minimizes, how it continues, and the sets it refuses."""

from __future__ import annotations

import pytest
import torch

from methods import SynthesisFailed
from methods.base import SynthesisTask
from methods.synthesis.generator_training import GeneratorConfig, GeneratorSynthesizer
from methods.testing.models import seeded, untrained


class Sided(GeneratorSynthesizer):
    """Wants the classes 5 to 9 to be bright above, the others below, whatever the teacher says."""

    Config = GeneratorConfig

    def losses(self, images, mixture, teacher, student):
        wanted = mixture.targets[:, 5:].sum(dim=1) * 2 - 1
        return {"side": (balance(images) - wanted).square().mean(), "nothing": 0.0 * images.mean()}


def balance(images: torch.Tensor) -> torch.Tensor:
    """(B,) how much brighter the upper half is than the lower."""
    upper, lower = images.chunk(2, dim=2)
    return upper.mean(dim=(1, 2, 3)) - lower.mean(dim=(1, 2, 3))


def config(**settings) -> GeneratorConfig:
    small = {"images": 8, "batch_size": 4, "iterations": 3, "latent_size": 5, "milestones": ()}
    return GeneratorConfig(**{**small, **settings})


def made(maker: GeneratorSynthesizer, seed: int = 0, **settings):
    return maker.synthesize(SynthesisTask(untrained("digits_vit"), generator=seeded(seed), **settings))


def test_training_lowers_the_loss_and_the_set_shows_it():
    seen = []
    settings = config(images=40, batch_size=8, iterations=60, learning_rate=0.01)
    drawn = made(Sided(settings), progress=lambda step, total, losses: seen.append(losses["side"]))
    assert seen[-1] < 0.5 * seen[0]
    agrees = (balance(drawn.images) > 0) == (drawn.labels >= 5)
    assert agrees.float().mean() > 0.9


def test_progress_and_final_losses_are_those_of_the_generator():
    seen = []
    drawn = made(Sided(config(iterations=25)), progress=lambda *step: seen.append(step))
    assert [(step, total) for step, total, _ in seen] == [(10, 25), (20, 25), (25, 25)]
    assert drawn.final_losses == seen[-1][2]
    assert set(drawn.final_losses) == {"side", "nothing"}


@pytest.mark.parametrize("images", [1, 4, 6])
def test_a_larger_set_begins_with_the_smaller_one(images):
    small, large = (made(Sided(config(images=n))) for n in (images, 9))
    assert small.images.shape == (images, 1, 16, 16)
    assert torch.equal(small.images, large.images[:images])
    assert torch.equal(small.labels, large.labels[:images])


def test_the_rate_falls_to_a_tenth_at_every_milestone():
    maker = Sided(GeneratorConfig())
    steps = (0, 19_999, 20_000, 40_000, 60_000, 79_999)
    rates = [maker.learning_rate_at(step, 0) for step in steps]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5, 1e-6, 1e-6])


def test_steps_follow_the_rate():
    networks = []
    for milestones in ((), (1 / 3,)):
        maker = Sided(config(milestones=milestones))
        rates = [maker.learning_rate_at(step, 0) for step in range(3)]
        assert rates == pytest.approx([1e-3] * 3 if not milestones else [1e-3, 1e-4, 1e-4])
        networks.append(made(maker).images)
    assert not torch.equal(*networks)


def test_a_later_set_continues_the_same_generator_and_epoch_0_starts_anew():
    class Refreshed(Sided):
        needs_student = True

        def iterations_at(self, epoch):
            return 40 if epoch == 0 else 1

    settings = config(batch_size=16, learning_rate=0.01)
    maker = Refreshed(settings)
    first = made(maker)
    continued, fresh = made(maker, epoch=3, previous=first), made(maker, epoch=3)
    assert continued.final_losses["side"] < 0.7 * fresh.final_losses["side"]
    assert torch.equal(made(maker).images, first.images)


def test_the_seed_decides_and_global_random_state_is_untouched():
    before = torch.get_rng_state()
    first, same, other = (made(Sided(config()), seed).images for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_fails_by_name(bad):
    class Broken(Sided):
        def losses(self, images, mixture, teacher, student):
            return {"fine": images.mean(), "broken": images.mean() * bad}

    with pytest.raises(SynthesisFailed, match=r"broken is not finite at iteration 10\b"):
        made(Broken(config(iterations=30)))


def test_a_generator_that_makes_one_image_alone_fails():
    class Alike(Sided):
        """Its noise is always the same."""

        def network(self, teacher, *, generator):
            network = super().network(teacher, generator=generator)
            network.latent = lambda mixture, generator: torch.ones(len(mixture.labels), 5)
            return network

    with pytest.raises(SynthesisFailed, match="collapsed: its 8 images differ from their mean by"):
        made(Alike(config()))


def test_a_set_of_mostly_constant_images_fails():
    class Saturated(Sided):
        """The pixels before tanh are far out, so that most images are wholly bright or dark."""

        def network(self, teacher, *, generator):
            network = super().network(teacher, generator=generator)
            with torch.no_grad():
                network.to_pixels.weight.zero_()
                network.to_pixels.bias.fill_(100.0)
            return network

    with pytest.raises(SynthesisFailed, match="8 of 8 images of a batch are constant"):
        made(Saturated(config()))


def test_a_few_constant_images_are_tolerated():
    class SometimesFlat(Sided):
        """Class 0 is a flat picture."""

        def network(self, teacher, *, generator):
            network = super().network(teacher, generator=generator)
            original = network.forward

            def forward(mixture, *, generator):
                flat = mixture.targets[:, :1, None, None]
                return original(mixture, generator=generator) * (1 - flat)

            network.forward = forward
            return network

    drawn = made(SometimesFlat(config(images=40)))
    constant = drawn.images.flatten(1).std(dim=1) == 0
    assert 0 < constant.sum() <= 20
    assert torch.equal(constant, drawn.labels == 0)
