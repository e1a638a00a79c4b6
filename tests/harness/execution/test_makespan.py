"""The simulation of a plan on so many workers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.execution.makespan import makespan
from harness.stages.base import Stage


def stage(name: str, *parents: str) -> Stage:
    return Stage("evaluate", name, {}, {parent: parent for parent in parents}, key=name)


DIAMOND = [stage("a"), stage("b", "a"), stage("c", "a"), stage("d", "b", "c"), stage("e")]
SECONDS = {"a": 1.0, "b": 5.0, "c": 2.0, "d": 1.0, "e": 3.0}


@pytest.mark.parametrize(("slots", "seconds"), [(1, 12.0), (2, 7.0), (9, 7.0)])
def test_a_plan_takes_what_its_order_and_its_workers_allow(slots, seconds):
    found = makespan(DIAMOND, SECONDS, slots)
    assert found.seconds == seconds
    assert found.work == 12.0
    assert found.shared_work == 12.0 / slots
    assert [one.key for one in found.critical_path] == ["a", "b", "d"]
    assert found.critical_seconds == 7.0


def test_the_longest_is_started_first():
    singles = [stage(name) for name in "abcd"]
    assert makespan(singles, {"a": 1.0, "b": 1.0, "c": 1.0, "d": 3.0}, 2).seconds == 3.0


def test_nothing_to_do_takes_no_time():
    found = makespan([], {}, 4)
    assert (found.seconds, found.critical_path) == (0.0, ())


@given(
    st.lists(st.tuples(st.floats(0, 100), st.lists(st.integers(0, 50), max_size=3)), max_size=20),
    st.integers(1, 6),
)
def test_it_lies_between_its_bounds_and_the_work_in_a_row(drawn, slots):
    stages = [stage(f"s{n}", *{f"s{p % n}" for p in ps if n}) for n, (_, ps) in enumerate(drawn)]
    seconds = {f"s{n}": value for n, (value, _) in enumerate(drawn)}
    found = makespan(stages, seconds, slots)
    least = max(found.shared_work, found.critical_seconds)
    assert least <= found.seconds + 1e-6
    assert found.seconds <= found.shared_work + found.critical_seconds + 1e-6  # Graham's bound
