"""What each loss term moves of the images, and that looking at it moves nothing."""

from __future__ import annotations

import pytest
import torch

from methods import configure
from methods.base import GradientShares, SynthesisTask
from methods.maskaq import MaskaqConfig, MaskaqObjective
from methods.synthesis.gradient_shares import GradientWatch
from methods.synthesis.loop import Batch, optimize
from methods.testing.models import DIGITS_MODELS, disturbed, seeded, synthesizer, untrained


def looked_at(iterations: int) -> list[int]:
    """Which iterations a watch of that many takes."""
    images = torch.ones(2, requires_grad=True)
    watch = GradientWatch(iterations)
    for iteration in range(iterations):
        watch.look(iteration, {"a": images.sum(), "b": images.sum()}, images)
    return list(watch.shares().iterations)


def test_shares_are_norms_over_the_norm_of_the_whole_gradient():
    images = torch.tensor([1.0, 2.0], requires_grad=True)
    watch = GradientWatch(1)
    terms = {
        "along": 3 * images[0],
        "across": 4 * images[1],
        "constant": torch.tensor(7.0),
        "none": 0 * images[0],
    }
    watch.look(0, terms, images)
    assert watch.shares() == GradientShares(
        (1,), {"along": [pytest.approx(0.6)], "across": [pytest.approx(0.8)], "constant": [0], "none": [0]}
    )


def test_terms_that_oppose_each_other_have_more_than_the_whole():
    images = torch.tensor([1.0], requires_grad=True)
    watch = GradientWatch(1)
    watch.look(0, {"up": -3 * images.sum(), "down": 2 * images.sum()}, images)
    assert watch.shares().means() == {"up": 3, "down": 2}


def test_terms_that_cancel_out_are_no_error():
    images = torch.tensor([1.0], requires_grad=True)
    watch = GradientWatch(1)
    watch.look(0, {"up": -images.sum(), "down": images.sum()}, images)
    assert all(value > 1e6 for value in watch.shares().means().values())


def test_one_term_has_everything_and_is_not_looked_at():
    images = torch.tensor([1.0], requires_grad=True)
    watch = GradientWatch(1)
    watch.look(0, {"only": images.sum()}, images)
    assert watch.shares() == GradientShares()


def test_looks_are_few_and_hold_the_first_and_the_last_iteration():
    assert looked_at(1) == [1]
    assert looked_at(2) == [1, 2]
    assert looked_at(60) == [1, 25, 50, 60]
    assert looked_at(2000) == [1, *range(200, 2001, 200)]


@pytest.mark.parametrize("model", DIGITS_MODELS)
def test_images_are_the_same_to_the_byte_with_and_without_looking(model):
    teacher = untrained(model)
    config = configure(MaskaqConfig, "smoke", {"iterations": 4})
    start = torch.randn(4, 1, 16, 16, generator=seeded())

    def made(watch: GradientWatch | None) -> torch.Tensor:
        batch = Batch(teacher, torch.arange(4), seeded(), student=disturbed(teacher))
        return optimize(start, MaskaqObjective(config, batch), 4, watch=watch)[0]

    watch = GradientWatch(4)
    assert made(watch).numpy().tobytes() == made(None).numpy().tobytes()
    shares = watch.shares()
    assert shares.iterations == (1, 4)
    assert set(shares.shares) == {"head_similarity", "one_hot", "variation", "row_entropy", "alignment"}
    assert all(value > 0 for values in shares.shares.values() for value in values)


@pytest.mark.parametrize(("name", "epoch"), [("psaq_vit", 0), ("adadfq", 1)])
def test_a_set_says_what_its_terms_moved(name, epoch):
    teacher = untrained("digits_vit")
    student = disturbed(teacher) if epoch else None
    task = SynthesisTask(teacher, generator=seeded(), student=student, epoch=epoch)
    made = synthesizer(name).synthesize(task)
    shares = made.gradient_shares
    assert set(shares.shares) == set(made.final_losses)
    assert {len(values) for values in shares.shares.values()} == {len(shares.iterations)}
    assert shares.iterations[0] == 1


def test_a_set_of_one_term_says_nothing():
    made = synthesizer("gdfq").synthesize(SynthesisTask(untrained("digits_vit"), generator=seeded()))
    assert (set(made.final_losses), made.gradient_shares) == ({"one_hot"}, GradientShares())
