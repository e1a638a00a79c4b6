"""A synthesis that fails is tried again with the next seed; nothing else is."""

from __future__ import annotations

import pytest

from harness.stages.retries import with_retries
from methods.base import SynthesisFailed, TrainingFailed


class Attempts:
    """Fails a number of times with an error, then gives the attempt's number."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error = failures, error
        self.seen: list[int] = []

    def __call__(self, attempt: int) -> int:
        self.seen.append(attempt)
        if len(self.seen) <= self.failures:
            raise self.error
        return attempt


def test_what_succeeds_is_made_once_without_a_note():
    attempts = Attempts(0, SynthesisFailed("constant"))
    assert with_retries(attempts) == (0, ())
    assert attempts.seen == [0]


def test_a_second_attempt_is_noted():
    attempts = Attempts(1, SynthesisFailed("constant"))
    assert with_retries(attempts) == (1, ("synthesis was repeated with the next seed: constant",))


def test_the_second_failure_says_how_often_it_was_tried():
    attempts = Attempts(2, SynthesisFailed("constant"))
    with pytest.raises(SynthesisFailed, match=r"constant \(tried 2 seeds\)"):
        with_retries(attempts)
    assert attempts.seen == [0, 1]


def test_another_error_is_raised_at_once():
    attempts = Attempts(1, TrainingFailed("the loss is not finite"))
    with pytest.raises(TrainingFailed):
        with_retries(attempts)
    assert attempts.seen == [0]
