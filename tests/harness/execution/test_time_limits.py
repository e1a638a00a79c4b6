"""How long a stage may take."""

from __future__ import annotations

import dataclasses

import pytest

from harness.execution.time_limits import TimeLimits
from harness.store import open_store
from tests.harness.fake_stages import context_of, stage


@pytest.mark.parametrize(("took", "limit"), [(1.0, 3600), (180.0, 3600), (1000.0, 20_000)])
def test_a_stage_may_take_twenty_times_what_its_like_took_and_an_hour_at_least(tmp_path, took, limit):
    known, store = stage("known"), open_store(tmp_path).create()
    store.add_timings({known.timing_name("cpu"): took, "evaluate:other:x:y:cpu": 5.0})
    context = context_of(tmp_path)
    assert TimeLimits(context).seconds(known) == limit
    assert TimeLimits(dataclasses.replace(context, device="cuda")).seconds(known) is None
    assert TimeLimits(dataclasses.replace(context, stage_timeout=7.0)).seconds(known) == 7
    assert TimeLimits(dataclasses.replace(context, stage_timeout=0.0)).seconds(known) is None


def test_nothing_known_is_no_limit_but_what_the_user_said_is(tmp_path):
    unknown = stage("unknown", "sleeps")
    assert TimeLimits(context_of(tmp_path)).seconds(unknown) is None
    assert TimeLimits(context_of(tmp_path, stage_timeout=60.0)).seconds(unknown) == 60
