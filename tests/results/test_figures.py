"""How numbers are rounded for people: nothing small becomes nothing."""

from __future__ import annotations

import math

import pytest

from results.figures import clock, duration, fixed, p_value, setting


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (97.256, "97.26"),
        (0.0004, "<0.01"),
        (0.0, "0.00"),
        (-0.001, "0.00"),
        (-0.5, "-0.50"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_decimals(value, shown):
    assert fixed(value, 2) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.174, "0.174"), (0.0004, "<.001"), (0.0, "<.001"), (0.001, "0.001"), (1.0, "1.000"), (None, "–")],
)
def test_p_values(value, shown):
    assert p_value(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0s"),
        (0.01, "<0.1s"),
        (0.4, "0.4s"),
        (0.97, "1s"),
        (45.0, "45s"),
        (99.0, "99s"),
        (100.0, "1.7m"),
        (720.0, "12m"),
        (12_600.0, "3.5h"),
        (3 * 86_400.0, "3.0d"),
        (None, "–"),
    ],
)
def test_durations(value, shown):
    assert duration(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.4, "0:00"), (67.0, "1:07"), (10_927.0, "3:02:07"), (3 * 86_400.0 + 10_927.0, "3d 3:02:07")],
)
def test_clocks(value, shown):
    assert clock(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0004, "0.0004"),
        (1e-05, "1e-05"),
        (0.123456, "0.1235"),
        (12345.6, "12346"),
        (1500.0, "1500"),
        (1281167, "1281167"),
        ("noise", "noise"),
        (None, "None"),
    ],
)
def test_settings(value, shown):
    assert setting(value) == shown
