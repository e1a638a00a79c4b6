"""Spread, intervals, paired tests and bitmaps against hand-worked values and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from results.statistics import (
    bootstrap_p_value,
    holm,
    mcnemar,
    pack_outcomes,
    pack_scores,
    paired_bootstrap,
    spread,
    unpack_outcomes,
    unpack_scores,
    wilson_interval,
)


def test_spread_is_the_sample_deviation():
    assert spread([70.0, 72.0, 74.0]) == (72.0, 2.0)


def test_one_seed_has_no_deviation():
    assert spread([71.5]) == (71.5, None)


def test_nothing_to_average_is_refused():
    with pytest.raises(ValueError, match="no values"):
        spread([])


@pytest.mark.parametrize(("successes", "images"), [(0, 10), (7, 10), (10, 10), (391, 500), (1, 50_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_interval_is_scipys(successes: int, images: int, confidence: float):
    expected = stats.binomtest(successes, images).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes / images, images, confidence=confidence) == pytest.approx(
        (expected.low, expected.high), abs=1e-12
    )


def test_wilson_interval_refuses_percent():
    with pytest.raises(ValueError, match="from 0 to 1"):
        wilson_interval(78.4, 500)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, both: int):
    first = np.array([True] * only_first + [False] * only_second + [True] * both, dtype=bool)
    second = np.array([False] * only_first + [True] * only_second + [True] * both, dtype=bool)
    discordant = only_first + only_second
    expected = stats.binomtest(only_first, discordant).pvalue if discordant else 1.0
    result = mcnemar(first, second)
    assert (result.only_first, result.only_second) == (only_first, only_second)
    assert result.p_value == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_many_images_agrees_with_scipy():
    first, second = np.arange(50_000) < 5_100, np.arange(50_000) >= 45_100
    result = mcnemar(first, second)
    assert result == (5_100, 4_900, pytest.approx(stats.binomtest(4_900, 10_000).pvalue, rel=1e-6))
    assert 0.04 < result.p_value < 0.05


def test_mcnemar_needs_the_same_images():
    with pytest.raises(ValueError, match="same images"):
        mcnemar(np.ones(4, dtype=bool), np.ones(5, dtype=bool))


def test_bootstrap_interval_of_one_seed_agrees_with_the_normal_approximation():
    rng = np.random.default_rng(0)
    first, second = rng.random((1, 2000)) < 0.7, rng.random((1, 2000)) < 0.6
    result = paired_bootstrap(first, second, generator=np.random.default_rng(1))
    per_image = first[0].astype(float) - second[0]
    error = per_image.std() / np.sqrt(2000)
    assert result.difference == pytest.approx(per_image.mean())
    assert result.interval == pytest.approx(
        (per_image.mean() - 1.96 * error, per_image.mean() + 1.96 * error), abs=0.1 * error
    )


def test_bootstrap_agrees_with_a_naive_resampling_of_images_and_seeds():
    rng = np.random.default_rng(2)
    first, second = rng.random((3, 150)) < 0.6, rng.random((2, 150)) < 0.55
    fast = paired_bootstrap(first, second, generator=np.random.default_rng(3), resamples=20_000)
    naive = []
    for _ in range(20_000):
        images = rng.integers(0, 150, 150)
        one, two = first[rng.integers(0, 3, 3)], second[rng.integers(0, 2, 2)]
        naive.append(one[:, images].mean() - two[:, images].mean())
    width = np.std(naive)
    assert fast.interval == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])), abs=0.06 * width)


def test_bootstrap_of_more_seeds_than_three_agrees_with_a_naive_resampling():
    """Rows that form many patterns resample shared images; the answer is that of images drawn afresh."""
    drawn = np.random.default_rng(7)
    easy = drawn.random(120)
    first, second = drawn.random((5, 120)) < easy, drawn.random((4, 120)) < 0.9 * easy
    shared = paired_bootstrap(first, second, generator=np.random.default_rng(0))
    naive = []
    for _ in range(10_000):
        images = drawn.integers(120, size=120)
        one, two = first[drawn.integers(5, size=5)], second[drawn.integers(4, size=4)]
        naive.append(one[:, images].mean() - two[:, images].mean())
    assert shared.interval == pytest.approx(
        tuple(np.quantile(naive, [0.025, 0.975])), abs=0.06 * np.std(naive)
    )
    tail = 2 * min(np.mean(np.array(naive) <= 0), np.mean(np.array(naive) >= 0))
    assert shared.p_value == pytest.approx(tail, abs=0.02)
    assert shared == paired_bootstrap(first, second, generator=np.random.default_rng(0))


def test_bootstrap_is_repeatable_and_takes_its_randomness_from_the_generator():
    first, second = np.random.default_rng(0).random((2, 2, 400)) < 0.5
    runs = [
        paired_bootstrap(first, second, generator=np.random.default_rng(seed), resamples=200)
        for seed in (4, 4, 5)
    ]
    assert runs[0] == runs[1]
    assert runs[0].interval != runs[2].interval


def test_bootstrap_of_equal_models_finds_no_difference():
    outcomes = np.arange(100).reshape(1, 100) % 3 == 0
    result = paired_bootstrap(outcomes, outcomes, generator=np.random.default_rng(0), resamples=100)
    assert (result.difference, result.interval, result.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_bootstrap_of_scores_agrees_with_a_naive_resampling():
    drawn = np.random.default_rng(1)
    first, second = drawn.random((2, 80)).round(2), (drawn.random((1, 80)) * 0.9).round(2)
    result = paired_bootstrap(first, second, generator=np.random.default_rng(0), resamples=4000)
    assert result.difference == pytest.approx(first.mean() - second.mean())
    means = []
    for _ in range(4000):
        images, seeds = drawn.integers(80, size=80), drawn.integers(2, size=2)
        means.append(first[seeds][:, images].mean() - second[:, images].mean())
    assert result.interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


def test_bootstrap_of_half_precision_scores_does_not_round_the_mean():
    first = np.full((1, 5000), 0.1, dtype=np.float16)
    result = paired_bootstrap(first, first / 2, generator=np.random.default_rng(0), resamples=10)
    assert result.difference == pytest.approx(0.05, abs=1e-4)


def test_bootstrap_p_value_is_small_for_a_clear_difference():
    right, wrong = np.ones((1, 60), dtype=bool), np.zeros((1, 60), dtype=bool)
    result = paired_bootstrap(right, wrong, generator=np.random.default_rng(0), resamples=999)
    assert result.p_value == pytest.approx(2 / 1000)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04; then never decreasing.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_holm_is_capped_at_one_and_takes_an_empty_family():
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.booleans(), max_size=70))
def test_outcomes_survive_packing(outcomes: list[bool]):
    restored = unpack_outcomes(pack_outcomes(outcomes), len(outcomes))
    assert restored.dtype == bool
    assert restored.tolist() == outcomes


def test_torch_outcomes_are_packed_too():
    import torch

    assert pack_outcomes(torch.tensor([True, False, True])) == pack_outcomes([True, False, True])


def test_a_bitmap_of_another_length_is_refused():
    with pytest.raises(ValueError, match="1 bytes does not hold the outcomes of 9"):
        unpack_outcomes(pack_outcomes([True] * 8), 9)


@given(st.lists(st.floats(0, 1, width=16), max_size=70))
def test_scores_survive_packing(scores: list[float]):
    restored = unpack_scores(pack_scores(scores), len(scores))
    assert restored.dtype == float
    assert restored.tolist() == scores


def test_scores_of_another_length_are_refused():
    with pytest.raises(ValueError, match="6 bytes do not hold the scores of 4 images"):
        unpack_scores(pack_scores([0.5, 1, 0]), 4)


@pytest.mark.parametrize("shift", [-0.5, -0.2, -0.05, 0.0, 0.02, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("seeds", [(1, 2), (3, 3)])
def test_a_p_value_that_is_certain_is_the_one_that_resampling_gives(shift, seeds):
    drawn = np.random.default_rng(1)
    first = drawn.random((seeds[0], 500)) < 0.4
    second = drawn.random((seeds[1], 500)) < 0.4 + shift
    resampled = paired_bootstrap(first, second, generator=np.random.default_rng(0)).p_value
    assert bootstrap_p_value(first, second, generator=np.random.default_rng(0)) == resampled


def test_nothing_is_drawn_for_models_that_are_far_apart():
    class NoGenerator:
        def multinomial(self, *_, **__):
            raise AssertionError("drawn")

    drawn = np.random.default_rng(1)
    first, second = drawn.random((3, 500)) < 0.9, drawn.random((3, 500)) < 0.5
    for one, other in ((first, second), (second, first)):
        assert bootstrap_p_value(one, other, generator=NoGenerator()) == 2 / 10_001
    with pytest.raises(AssertionError, match="drawn"):
        bootstrap_p_value(first, first, generator=NoGenerator())
