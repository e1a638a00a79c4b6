import math

import pytest
import torch

from methods.fdd import FddConfig, FddObjective
from methods.synthesis.loop import Batch, optimize
from methods.testing.models import DIGITS_MODELS, blobs, tiny


def objective_on(name: str = "digits_vit", **settings) -> FddObjective:
    batch = Batch(tiny(name), torch.arange(4), torch.Generator().manual_seed(0))
    return FddObjective(FddConfig(**settings), batch)


def frequencies(pixels: torch.Tensor) -> torch.Tensor:
    """Radii of the frequencies, as fractions of the highest of an axis, that an image has."""
    spectrum = torch.fft.fft2(pixels.double()).abs().amax(dim=(0, 1))
    axis = torch.fft.fftfreq(16, dtype=torch.float64) * 2
    return torch.hypot(axis.unsqueeze(1), axis)[spectrum > 1e-3 * spectrum.max()]


def shown_at(objective: FddObjective, view: torch.Tensor, iteration: int, monkeypatch) -> torch.Tensor:
    """What the prior's forward pass sees of the view, as pixels."""
    seen = []
    original = objective.seen
    monkeypatch.setattr(objective, "seen", lambda x: (seen.append(x), original(x))[1])
    objective.losses(view, view, iteration)
    data = objective.batch.teacher.data
    return seen[0] * data.std[0] + data.mean[0]


@pytest.mark.parametrize(("stage", "outer"), [(0, 0.2), (1, 0.3), (2, 0.4), (3, 0.5), (4, 0.6)])
def test_the_first_half_of_a_stage_sees_low_frequencies(stage, outer, monkeypatch):
    view = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    shown = shown_at(objective_on(), view, 200 * stage + 99, monkeypatch)
    assert shown.min() > 0  # so the magnitude changed nothing
    assert outer - 0.13 < frequencies(shown).max() <= outer + 1e-6


def test_the_second_half_sees_a_band_whose_mean_is_gone(monkeypatch):
    data = tiny("digits_vit").data
    x = torch.arange(16) / 16
    coarse, fine = torch.cos(2 * math.pi * 2 * x), torch.cos(2 * math.pi * 6 * x)  # radii 0.25 and 0.75
    pixels = (0.5 + 0.2 * coarse + 0.1 * fine).expand(4, 1, 16, 16)
    view = (pixels - data.mean[0]) / data.std[0]
    first = shown_at(objective_on(), view, 100, monkeypatch)  # band 0.1 to 0.4
    torch.testing.assert_close(first, (0.2 * coarse).abs().expand(4, 1, 16, 16), atol=1e-6, rtol=0)
    last = shown_at(objective_on(), view, 900, monkeypatch)  # everything up to 1
    torch.testing.assert_close(last, pixels, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", DIGITS_MODELS)
def test_the_second_half_learns_from_the_low_pass_prediction(name):
    teacher, view = tiny(name), blobs(4)
    objective = objective_on(name, distillation_share=0.25)
    with torch.no_grad():
        found = objective.losses(view, view, 150)["one_hot"]
        coarse = teacher.model(objective._filtered(view, objective._low_passes[0])).softmax(dim=1)
        shown = teacher.model(objective._filtered(view, objective._high_passes[0])).log_softmax(dim=1)
    label = -shown[torch.arange(4), torch.arange(4)].mean()
    divergence = (coarse * (coarse.log() - shown)).sum(dim=1).mean()
    torch.testing.assert_close(found, 0.75 * label + 0.25 * divergence)


def test_the_low_pass_prediction_is_a_fixed_target():
    objective = objective_on(distillation_share=1.0, variation_weight=0.0, entropy_weight=0.0)
    view = blobs(4).requires_grad_()
    (found,) = torch.autograd.grad(objective.losses(view, view, 150)["one_hot"], view)
    target = objective.batch.teacher.model(objective._filtered(view, objective._low_passes[0])).detach()
    shown = objective.batch.teacher.model(objective._filtered(view, objective._high_passes[0]))
    loss = torch.nn.functional.kl_div(
        shown.log_softmax(1), target.log_softmax(1), log_target=True, reduction="batchmean"
    )
    torch.testing.assert_close(found, torch.autograd.grad(loss, view)[0], atol=1e-6, rtol=1e-4)


def test_stages_shift_further_and_start_their_rate_anew():
    objective = objective_on()
    assert objective.jitter == tuple(int(0.3 * 112 * stage / 5) for stage in range(5))
    rates = [objective.learning_rate(i) for i in (0, 39, 120, 199, 200, 239, 999)]
    expected = [0.2 / 40, 0.2, 0.1, 0, 0.2 / 40, 0.2, 0]
    assert rates == pytest.approx(expected, abs=1e-4)
    images = blobs(4)
    first = objective.view(images, 0)
    assert torch.equal(first, images) or torch.equal(first, images.flip(-1))


@pytest.mark.parametrize("name", DIGITS_MODELS)
def test_optimisation_lowers_the_loss_within_a_filter(name):
    totals = []
    optimize(
        torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)),
        objective_on(name, iterations=400),
        40,  # the first half of the first of five stages
        report=lambda iteration, losses: totals.append(sum(losses.values())),
    )
    assert totals[-1] < totals[0]


@pytest.mark.parametrize("iterations", [10, 11, 64, 1000])
def test_any_number_of_iterations_has_a_stage_for_each(iterations):
    objective = objective_on(iterations=iterations)
    images = blobs(4)
    for iteration in (0, iterations // 2, iterations - 1):
        view = objective.view(images, iteration)
        assert all(loss.isfinite() for loss in objective.losses(images, view, iteration).values())
