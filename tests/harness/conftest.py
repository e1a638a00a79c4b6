"""Shared by the tests of the harness: stage kinds that a test registers are unknown to the next."""

from __future__ import annotations

import pytest

from harness.stages.kinds import kind_names, unregister_kind


@pytest.fixture(autouse=True)
def _stage_kinds_stay_as_they_were():
    """Forget the kinds that the test registered."""
    before = kind_names()
    yield
    for name in set(kind_names()) - set(before):
        unregister_kind(name)
