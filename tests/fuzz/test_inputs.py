"""Whatever a user gives is accepted and planned, or refused in sentences; nothing else is ever raised."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.inputs import KINDS, Kind
from tests.fuzz.refusals import nothing_written_outside

QUICK = 0.03
"""Share of the 10,000 inputs that every run of the tests tries."""


def tried(kind: Kind, count: int, folder: Path) -> Counter[bool]:
    """How many of so many inputs were accepted, and how many refused."""
    seen: Counter[bool] = Counter()
    rooms = iter(range(10**9))

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.strategy)
    def check(value: Any) -> None:
        room = folder / str(next(rooms))
        room.mkdir()
        with nothing_written_outside(folder):
            seen[kind.check(value, room)] += 1

    check()
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_is_planned_or_refused_in_sentences(kind, tmp_path):
    seen = tried(KINDS[kind], round(KINDS[kind].share * QUICK), tmp_path / "work")
    assert seen[True], "none was accepted"
    assert seen[False], "none was refused"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_inputs_are_planned_or_refused_in_sentences(kind, tmp_path):
    seen = tried(KINDS[kind], KINDS[kind].share, tmp_path / "work")
    print(f"{kind}: {seen.total()} inputs, {seen[True]} accepted, {seen[False]} refused")
    assert min(seen[True], seen[False]) > KINDS[kind].share // 20
