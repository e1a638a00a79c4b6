import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm

from methods.synthesis.patch_similarity import patch_similarity_entropy, similarity_density
from tests.golden import sine

BANDWIDTH = 0.01


def full_sum(rows: torch.Tensor, points: int) -> torch.Tensor:
    """Every similarity at every grid point, by autograd: the definition."""
    values = (rows @ rows.transpose(-2, -1)).flatten(1)
    low = values.min().detach()
    grid = low + (1 - low) * torch.arange(points, dtype=rows.dtype) / (points - 1)
    kernels = torch.exp(-0.5 * ((values.unsqueeze(-1) - grid) / BANDWIDTH) ** 2)
    return kernels.mean(dim=1) / (BANDWIDTH * np.sqrt(2 * np.pi))


def unit_rows(spread: float, *, groups: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Rows around a common direction: the smaller the spread, the narrower the range of similarities."""
    noise = torch.randn(2, groups, 20, 8, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return F.normalize(torch.ones(8, dtype=dtype) + spread * noise, dim=-1)


def test_entropy_matches_the_released_function(golden):
    case = golden["psaq_vit.patch_entropy"]
    outputs = sine((2, 3, 197, 16), 0.021, 0.4, 1.0) + 0.5 * sine((2, 3, 197, 16), 1.7, 0.4, 1.0)
    outputs.requires_grad_()
    value = patch_similarity_entropy(outputs, 2, skip_tokens=1)
    value.backward()
    assert value.item() == pytest.approx(case["value"], rel=1e-4)
    assert outputs.grad.norm().item() == pytest.approx(case["grad_norm_of_input_0"], rel=1e-4)


# From similarities all above 0.99 (every grid point counts for every value) to the whole of [-1, 1].
@pytest.mark.parametrize("spread", [0.01, 0.1, 0.3, 0.6, 1.0, 30.0])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("points", [10, 40])
def test_density_and_derivative_match_the_full_sum(spread, groups, points):
    rows = unit_rows(spread, groups=groups)
    weights = torch.linspace(-1, 1, points, dtype=torch.float64)
    ours, plain = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    density, lowest = similarity_density(ours, points=points, bandwidth=BANDWIDTH)
    reference = full_sum(plain, points)
    (density @ weights).sum().backward()
    (reference @ weights).sum().backward()
    assert lowest.item() == pytest.approx((rows @ rows.transpose(-2, -1)).min().item())
    # The bound: `points` left-out kernels of 1e-10 of the peak 1 / (bandwidth sqrt(2 pi)).
    assert (density - reference).abs().max() <= points * 1e-10 / (BANDWIDTH * np.sqrt(2 * np.pi))

    def tangential(grad: torch.Tensor) -> torch.Tensor:  # along a row nothing changes: rows keep unit length
        return grad - (grad * rows).sum(-1, keepdim=True) * rows

    torch.testing.assert_close(tangential(ours.grad), tangential(plain.grad), rtol=1e-7, atol=1e-6)


def test_density_matches_scipy():
    rows = unit_rows(1.0)
    density, lowest = similarity_density(rows, points=10, bandwidth=BANDWIDTH)
    values = (rows[1, 0] @ rows[1, 0].T).numpy().ravel()
    expected = [norm.pdf(values, loc=x, scale=BANDWIDTH).mean() for x in np.linspace(lowest.item(), 1, 10)]
    np.testing.assert_allclose(density[1].numpy(), expected, rtol=1e-6, atol=1e-7)


def test_entropy_of_two_opposed_patches_by_hand():
    outputs = torch.tensor([[[[1.0, 0.0], [-1.0, 0.0]]]])  # similarities 1, 1, -1, -1
    peak = 0.5 / (BANDWIDTH * np.sqrt(2 * np.pi)) + 1e-4
    ends, inner, width = -peak * np.log(peak), -1e-4 * np.log(1e-4), 2 / 9
    value = patch_similarity_entropy(outputs, 1, skip_tokens=0)
    assert value.item() == pytest.approx((ends + 8 * inner) * width, rel=1e-5)


def test_entropy_of_identical_patches_is_zero_and_has_a_finite_derivative():
    outputs = torch.ones(2, 1, 5, 4, requires_grad=True)
    value = patch_similarity_entropy(outputs, 2, skip_tokens=1)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-4)
    assert outputs.grad.isfinite().all()


def test_a_number_that_is_not_finite_comes_through():
    outputs = torch.full((2, 1, 5, 4), float("nan"), requires_grad=True)
    value = patch_similarity_entropy(outputs, 2, skip_tokens=1)
    value.backward()
    assert value.isnan()


def test_windows_of_an_image_are_pooled():
    outputs = torch.randn(6, 2, 9, 4, generator=torch.Generator().manual_seed(3))
    one_by_one = similarity_density(
        F.normalize(outputs.mean(1), dim=-1).unflatten(0, (2, 3)), points=10, bandwidth=BANDWIDTH
    )
    p = one_by_one.density + 1e-4
    step = (1 - one_by_one.lowest.item()) / 9
    expected = np.trapezoid((-p * p.log()).numpy(), dx=step, axis=1).mean()
    assert patch_similarity_entropy(outputs, 2, skip_tokens=0).item() == pytest.approx(expected, rel=1e-5)


def test_skipped_tokens_do_not_count():
    outputs = torch.randn(2, 2, 9, 4, generator=torch.Generator().manual_seed(3))
    changed = outputs.clone()
    changed[:, :, 0] = 7.0
    assert patch_similarity_entropy(outputs, 2, skip_tokens=1) == patch_similarity_entropy(
        changed, 2, skip_tokens=1
    )
    assert patch_similarity_entropy(outputs, 2, skip_tokens=0) != patch_similarity_entropy(
        changed, 2, skip_tokens=0
    )
