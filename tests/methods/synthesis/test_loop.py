from dataclasses import dataclass

import pytest
import torch

from backbones import SPECS, Backbone
from backbones.loading import build_model
from methods.base import SynthesisFailed, SynthesisTask
from methods.synthesis.loop import Batch, ImageOptimizer, Objective, cosine, optimize


@dataclass(frozen=True)
class Config:
    images: int = 5
    batch_size: int = 2
    iterations: int = 25
    learning_rate: float = 0.1


class Bright(Objective):
    """Wants every pixel at a random level of its batch."""

    def __init__(self, config, batch):
        super().__init__(config, batch)
        self.level = torch.rand((), generator=batch.generator)

    def losses(self, images, view, iteration):
        return {"level": (view - self.level).square().mean(), "size": 0.0 * images.square().mean()}


class BrightImages(ImageOptimizer):
    Config = Config
    Objective = Bright


@pytest.fixture(scope="module")
def teacher() -> Backbone:
    spec = SPECS["digits_vit"]
    return Backbone(spec, build_model(spec).eval().requires_grad_(False), "x")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(teacher: Backbone, count: int = 2) -> Batch:
    return Batch(teacher, torch.zeros(count, dtype=torch.long), seeded())


def noise(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 1, 16, 16, generator=seeded())


def test_a_set_has_its_shape_labels_and_losses(teacher):
    made = BrightImages(Config()).synthesize(SynthesisTask(teacher, generator=seeded()))
    assert made.images.shape == (5, 1, 16, 16)
    assert made.images.dtype == torch.float32
    assert not made.images.requires_grad
    assert made.labels.shape == (5,)
    assert made.labels.dtype == torch.int64
    assert set(made.final_losses) == {"level", "size"}
    assert all(isinstance(value, float) for value in made.final_losses.values())


def test_final_losses_are_means_over_batches(teacher):
    one = BrightImages(Config(images=2)).synthesize(SynthesisTask(teacher, generator=seeded()))
    source = seeded()
    torch.randint(2**62, (), generator=source)
    other = BrightImages(Config(images=2)).synthesize(SynthesisTask(teacher, generator=source))
    both = BrightImages(Config(images=4)).synthesize(SynthesisTask(teacher, generator=seeded()))
    expected = (one.final_losses["level"] + other.final_losses["level"]) / 2
    assert both.final_losses["level"] == pytest.approx(expected)


def test_a_larger_set_begins_with_the_smaller_one(teacher):
    small = BrightImages(Config(images=4)).synthesize(SynthesisTask(teacher, generator=seeded()))
    large = BrightImages(Config(images=7)).synthesize(SynthesisTask(teacher, generator=seeded()))
    assert torch.equal(large.images[:4], small.images)
    assert torch.equal(large.labels[:4], small.labels)
    assert not torch.equal(large.images[:2], large.images[2:4])


def test_the_seed_decides_and_global_random_state_is_untouched(teacher):
    before = torch.get_rng_state()
    first, again, other = (
        BrightImages(Config()).synthesize(SynthesisTask(teacher, generator=seeded(seed))).images
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_labels_are_drawn_from_all_classes(teacher):
    config = Config(images=400, batch_size=400, iterations=1)
    labels = BrightImages(config).synthesize(SynthesisTask(teacher, generator=seeded())).labels
    counts = torch.bincount(labels, minlength=10)
    assert len(counts) == 10
    assert counts.min() > 20


def test_images_stay_in_the_pixel_range(teacher):
    class Runaway(Bright):
        def losses(self, images, view, iteration):
            return {"away": -images.abs().sum()}

    low, high = teacher.pixel_range()
    images, _ = optimize(10 * noise(), Runaway(Config(), batch_of(teacher)), 3)
    assert (images >= low).all()
    assert (images <= high).all()
    assert images.min() == low.min()
    assert images.max() == high.max()


def test_an_objective_may_keep_less_than_was_optimised(teacher):
    class Halved(Bright):
        def finished(self, images):
            return images / 2

    whole, _ = optimize(noise(), Bright(Config(), batch_of(teacher)), 3)
    halved, _ = optimize(noise(), Halved(Config(), batch_of(teacher)), 3)
    assert torch.equal(halved, whole / 2)


def test_an_optimised_batch_follows_its_rate_schedule(teacher):
    class Still(Bright):
        def learning_rate(self, iteration):
            return 0.0 if iteration < 2 else 0.1

    low, high = teacher.pixel_range()
    start = noise().clamp(low, high)
    unmoved, _ = optimize(start, Still(Config(), batch_of(teacher)), 2)
    moved, _ = optimize(start, Still(Config(), batch_of(teacher)), 3)
    assert torch.equal(unmoved, start)
    assert not torch.equal(moved, start)


def test_progress_counts_over_the_whole_set(teacher):
    seen = []
    BrightImages(Config(images=4)).synthesize(
        SynthesisTask(
            teacher,
            generator=seeded(),
            progress=lambda step, total, losses: seen.append((step, total, losses)),
        )
    )
    assert [(step, total) for step, total, _ in seen] == [(s, 50) for s in (10, 20, 25, 35, 45, 50)]
    assert seen[2][2]["level"] < seen[0][2]["level"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_fails_by_name(teacher, bad):
    class Broken(Bright):
        def losses(self, images, view, iteration):
            return {"fine": images.mean(), "broken": images.mean() * bad}

    with pytest.raises(SynthesisFailed, match=r"broken is not finite at iteration 10\b"):
        optimize(noise(), Broken(Config(), batch_of(teacher)), 30)


def test_images_that_are_not_finite_fail(teacher):
    class Cliff(Bright):
        def losses(self, images, view, iteration):
            return {"root": (images - images.detach()).sqrt().sum()}

    with pytest.raises(SynthesisFailed, match="images are not finite"):
        optimize(noise(), Cliff(Config(), batch_of(teacher)), 1)


def test_constant_images_fail(teacher):
    class Dark(Bright):
        def losses(self, images, view, iteration):
            return {"sum": images.sum()}

        def learning_rate(self, iteration):
            return 100.0

    with pytest.raises(SynthesisFailed, match="2 of 2 images of a batch are constant"):
        optimize(noise(), Dark(Config(), batch_of(teacher)), 2)


def test_cosine_ends_and_middle():
    assert [cosine(4.0, 2.0, share) for share in (0, 0.5, 1)] == pytest.approx([4, 3, 2])
