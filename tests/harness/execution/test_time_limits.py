"""How long a stage may take."""

from __future__ import annotations

import dataclasses

import pytest

from harness.execution.time_limits import Overdue, TimeLimits
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


def test_only_what_this_run_makes_is_overdue_and_it_is_told_once(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("harness.execution.time_limits.time.monotonic", lambda: now)
    store, context = open_store(tmp_path).create(), context_of(tmp_path, stage_timeout=60.0)
    stages = {name: stage(name) for name in ("ours", "theirs", "queued")}
    ours, theirs = dataclasses.asdict(context.claimant), {"process": 1, "host": "elsewhere"}
    overdue: Overdue[str] = Overdue(context)
    now = 1000.0  # none of them was made so far
    assert overdue.among(stages) == []
    with store.claim(stages["ours"].key, ours), store.claim(stages["theirs"].key, theirs):
        told = []
        for now in (1001.0, 1060.0, 1062.0, 1063.0, 9000.0):  # noqa: B007 - the clock reads it
            told.append(overdue.among(stages))
    assert told == [[], [], ["ours"], [], []]
    assert overdue.limit_passed("ours") == 60
    assert overdue.limit_passed("theirs") is overdue.limit_passed("queued") is None
    overdue.forget("ours")
    assert overdue.limit_passed("ours") is None
