"""Intervals, ties, average ranks and smallest differences of a report: worked values and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from results.grouping import gathered
from results.report.average_ranks import average_ranks, critical_difference
from results.report.detectable import detectable, smallest_difference
from results.report.ties import tied_ranks
from results.report.uncertainty import interval_of, uncertainty
from results.statistics import mcnemar, pack_outcomes, wilson_interval
from tests.results.fakes import failed, record


def test_one_seed_of_right_and_wrong_has_wilsons_interval():
    right = np.array([[True] * 70 + [False] * 30])
    assert interval_of(right) == wilson_interval(0.7, 100)


def test_the_error_of_crossed_images_and_seeds_by_hand():
    values = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    # Means of images 0.5 0 0.5: variance 1/12, over 3 images 1/36. Means of seeds 2/3 and 0: times 3 images
    # their variance 2/9 is 2/3; the rest is 6 * var - 2/3 - 2 * 1/12 * 2 = 1/3 over 2 degrees of freedom.
    images, seeds = 1 / 36, (2 / 3 - 1 / 6) / 6
    found = uncertainty(values)
    assert found.mean == pytest.approx(1 / 3)
    assert found.error == pytest.approx(math.sqrt(images + seeds))
    assert found.freedom == pytest.approx((images + seeds) ** 2 / (images**2 / 2 + seeds**2 / 1))


def test_seeds_that_differ_no_more_than_images_explain_add_nothing():
    values = np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    assert uncertainty(values).error == 0.0  # every image has the mean 0.5, and so has every seed


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Three seeds that differ by 2 points, images of unequal difficulty: 95 % within simulation error."""
    generator = np.random.default_rng(0)
    held, rounds, images = 0, 400, 300
    for _ in range(rounds):
        ease = generator.normal(0.6, 0.3, size=images)
        luck = generator.normal(0.0, 0.02, size=(3, 1))
        right = ease + luck + generator.normal(0, 0.2, size=(3, images))
        low, high = interval_of(right)
        held += low <= 0.6 <= high
    assert 0.92 <= held / rounds <= 0.99


def test_differences_of_other_images_are_refused():
    with pytest.raises(ValueError, match="same images"):
        uncertainty(np.ones((1, 3)), np.ones((1, 4)))


def test_the_smallest_difference_by_hand():
    # psi 0.2, n 450: (1.95996 sqrt(0.2) + 0.84162 sqrt(0.2 - 0.05890^2))^2 / 0.05890^2 is 450.
    found = smallest_difference(450, 0.2)
    assert found == pytest.approx(0.05890, abs=2e-5)
    needed = (1.959964 * math.sqrt(0.2) + 0.841621 * math.sqrt(0.2 - found**2)) ** 2 / found**2
    assert needed == pytest.approx(450, rel=1e-5)


def test_of_few_images_no_difference_above_the_share_that_differs_is_claimed():
    assert smallest_difference(5, 0.1) == 0.1
    with pytest.raises(ValueError, match="share"):
        smallest_difference(0, 0.1)


def test_a_difference_of_that_size_is_found_four_times_in_five():
    generator = np.random.default_rng(1)
    images, differing = 1000, 0.15
    difference = smallest_difference(images, differing)
    shares = [(differing + difference) / 2, (differing - difference) / 2, 1 - differing]
    found = 0
    for first, second, _ in generator.multinomial(images, shares, size=400):
        one = np.array([True] * first + [False] * second)
        found += mcnemar(one, ~one).p_value < 0.05
    assert 0.72 <= found / 400 <= 0.86  # the exact test is a little conservative


def test_groups_say_what_they_could_tell_apart():
    rows = gathered(
        [record("psaq_vit", "1" * 60 + "0" * 40), record("maskaq", "1" * 50 + "0" * 20 + "1" * 30)]
    )
    found = detectable(rows)
    assert (found.rows, found.images, found.seeds) == (2, 100, 1)
    assert found.points == pytest.approx(100 * smallest_difference(100, 0.4))
    assert found.corrected == found.points  # one comparison needs no correction
    assert detectable(gathered([record("psaq_vit"), record("maskaq", outcomes={})])) is None


def many(method: str, right: int, images: int = 400, shift: int = 0, **changes):
    """Right on so many images from the shifted start on."""
    outcomes = [(place - shift) % images < right for place in range(images)]
    return record(method, outcomes, **changes)


def test_rows_that_are_not_told_apart_share_a_rank():
    rows = gathered(
        [many("maskaq", 300), many("mimiq", 296, shift=10), many("psaq_vit", 200), many("smi", 199, shift=3)]
    )
    ranks = {rows[index].first.method: rank for index, rank in tied_ranks(rows).items()}
    assert ranks == {"maskaq": 1, "mimiq": 1, "psaq_vit": 3, "smi": 3}


def test_without_outcomes_only_equal_means_tie():
    rows = gathered([many("maskaq", 300), many("mimiq", 299, outcomes={}), many("smi", 300, outcomes={})])
    ranks = {rows[index].first.method: rank for index, rank in tied_ranks(rows).items()}
    assert ranks == {"maskaq": 1, "smi": 1, "mimiq": 3}


def test_the_critical_difference_is_that_of_the_tables():
    # q of Demsar 2006, table 5: 1.960 for 2 methods, 2.343 for 3, 2.728 for 5, 3.164 for 10.
    for methods, q in ((2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)):
        expected = q * math.sqrt(methods * (methods + 1) / (6 * 14))
        assert critical_difference(methods, 14) == pytest.approx(expected, abs=1e-3)


def test_average_ranks_over_three_backbones_and_nothing_filled_in():
    scores = {"maskaq": (90, 80, 70), "mimiq": (80, 80, 60), "smi": (10, 20, 30)}
    records = [
        record(method, metrics={"top1": float(score)}, backbone=backbone, samples_digest=backbone)
        for method, row in scores.items()
        for backbone, score in zip(("deit_tiny", "deit_small", "swin_tiny"), row, strict=True)
    ]
    records += [record("psaq_vit", backbone="deit_tiny"), failed("psaq_vit", backbone="deit_small")]
    (found,) = average_ranks(gathered(records))
    assert found.ranks == pytest.approx(
        {"maskaq + psaq_ptq": 3.5 / 3, "mimiq + psaq_ptq": 5.5 / 3, "smi + psaq_ptq": 3.0}
    )
    assert found.left_out == ("psaq_vit + psaq_ptq",)


def test_two_backbones_give_no_average_rank_and_say_why():
    records = [record(m, backbone=b) for m in ("maskaq", "smi") for b in ("deit_tiny", "deit_small")]
    (found,) = average_ranks(gathered(records))
    assert not found.ranks
    assert found.why_not == "an average rank needs 3 backbones or data sets, and there are no more than 2"


def test_several_seeds_make_the_smallest_difference_larger():
    generator = np.random.default_rng(2)

    def row(method: str, spread: float) -> list:
        return [
            record(method, seed=seed, outcomes={"top1": pack_outcomes(right)}, images=500)
            for seed, right in enumerate(
                generator.random((3, 500)) < 0.6 + spread * np.array([[-1], [0], [1]])
            )
        ]

    calm = detectable(gathered([*row("maskaq", 0.0), *row("smi", 0.0)]))
    wild = detectable(gathered([*row("maskaq", 0.1), *row("smi", 0.1)]))
    assert calm.seeds == wild.seeds == 3
    assert wild.points > 2 * calm.points
