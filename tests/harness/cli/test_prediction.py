"""`harness plan --cluster`, through the command."""

from __future__ import annotations

import re

import pytest

from harness.planning.request import Places, Request, Rows
from harness.planning.session import open_outline
from harness.store import open_store
from results.figures import duration

SUITE = ("plan", "--suite", "digits_w4a4", "--methods", "psaq_vit", "--backbones", "digits_vit")
COSTS = ("--stage-cost", "evaluate=10s", "--stage-cost", "synthesize=1m", "--stage-cost", "quantize=0.5m")


@pytest.fixture
def session(tmp_path):
    suite = Rows("digits_w4a4", methods=("psaq_vit",), backbones=("digits_vit",))
    return open_outline(Request(suite, Places(store=str(tmp_path / "dfq-store"))))


def longest_chain(session, cost):
    """Seconds of the chain that takes longest, by looking at every chain."""
    stages = session.plan.stages

    def of(stage):
        return cost(stage) + max((of(stages[key]) for key in stage.awaited), default=0.0)

    return max(map(of, stages.values()))


def test_without_timings_of_a_kind_nothing_is_predicted(harness):
    status, out, _ = harness(*SUITE, "--cluster", "8xH100")
    assert status == 0
    said = " ".join(out.split())
    assert "no timings on cuda for the stages evaluate, quantize, synthesize" in said
    assert "No schedule" not in said


def test_given_costs_give_makespan_bounds_and_critical_path(harness, session):
    status, out, _ = harness(*SUITE, *COSTS, "--cluster", "8xH100")
    said = " ".join(out.split())
    costs = {"evaluate": 10.0, "synthesize": 60.0, "quantize": 30.0}
    longest = duration(longest_chain(session, lambda stage: costs[stage.kind]))
    assert status == 0
    assert f"8 stages at once: {longest} for what is missing. No schedule takes less than {longest}" in said
    assert re.search("critical path: [34] stages", said)
    assert "from given costs and timings of this store on any cuda device" in said


def test_stored_timings_are_those_of_the_device_alone(harness, session, tmp_path):
    store = open_store(tmp_path / "dfq-store").create()
    store.add_timings({one.timing_name("cpu"): 7.0 for one in session.plan.stages.values()})
    assert "No prediction for 8xH100" in harness(*SUITE, "--cluster", "8xH100")[1]
    _, out, _ = harness(*SUITE, "--cluster", "8xcpu")
    longest = duration(longest_chain(session, lambda stage: 7.0))
    assert f"On 8xcpu, 8 stages at once: {longest}" in " ".join(out.split())
    _, out, _ = harness(*SUITE, "--cluster", "1xcpu")
    assert f"1 stages at once: {7 * len(session.plan.stages)}s" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cluster", "H100"), "--cluster H100: how many and of what, such as 8xH100 or 16xcpu"),
        (("--cluster", "0xH100"), "how many and of what"),
        (("--cluster", "8xH100", "--stage-cost", "train"), "a kind and its time, such as train=20m"),
        (("--cluster", "8xH100", "--stage-cost", "train=-1m"), "a kind and its time"),
        (("--cluster", "8xH100", "--stage-cost", "trian=1m"), "unknown kind of stage: did you mean train?"),
        (("--stage-cost", "train=1m"), "only with --cluster"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_requests_faults(harness, words, said):
    status, out, err = harness("plan", "--suite", "digits_w4a44", *words)
    assert (status, out) == (2, "")
    assert said in err
    assert "digits_w4a44" in err
