"""GPUs under Ray, pretended ones: Ray hands out numbers of GPUs that no machine has to have."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from harness.errors import UsageError
from harness.execution.schedulers import local_ray
from harness.execution.schedulers.base import Work
from harness.execution.schedulers.registry import get_scheduler
from harness.stages.base import RunContext
from harness.store import open_store
from tests.harness.fake_stages import context_of, held_by, runs_of, stage

pytestmark = pytest.mark.ray
GPUS = 2


@pytest.fixture(scope="module")
def scheduler():
    """A local Ray that was told to have GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_ray, "_SETTINGS", {**local_ray._SETTINGS, "num_gpus": GPUS, "num_cpus": 16})
        made = get_scheduler("ray")(None)
        yield made
        made.close()


@pytest.fixture
def context(tmp_path) -> RunContext:
    open_store(tmp_path).create()
    return context_of(tmp_path, device="auto", gpus_per_trial=1.0)


def run(scheduler, context, count, **settings):
    """Run so many stages that hold a GPU; what they said, in the order in which they began."""
    stages = [stage(f"s{n}", "holds", **{"together": 0, **settings}) for n in range(count)]
    results = scheduler.run(Work(stages, context, lambda event: None))
    return [results[one.key].status for one in stages], held_by(open_store(context.store))


def test_auto_means_the_gpus_that_ray_has_although_torch_sees_none_here(scheduler, context):
    devices = []
    work = Work([stage("s", "holds", together=0)], context, lambda event: None, on_device=devices.append)
    scheduler.run(work)
    (held,) = held_by(open_store(context.store))
    assert (held["device"], held["gpus"], devices) == ("cuda", 1.0, ["cuda"])
    assert held["gpu"] in {str(n) for n in range(GPUS)}


def test_a_process_has_one_gpu_for_as_long_as_it_lives(scheduler, context):
    statuses, held = run(scheduler, context, 20, together=GPUS)
    assert set(statuses) == {"done"}
    gpus_of = {}
    for one in held:
        gpus_of.setdefault(one["process"], set()).add(one["gpu"])
    assert {len(gpus) for gpus in gpus_of.values()} == {1}
    assert {one["gpu"] for one in held} == {"0", "1"}
    assert len(held) == 20 > len(gpus_of)  # a process serves for many stages
    assert most_at_once(held) == 1


@pytest.mark.slow
def test_parts_of_a_gpu_are_packed_and_never_exceed_it(scheduler, context):
    """Eight stages of 0.3: three on a GPU, so that more than three can only begin together on both."""
    context = dataclasses.replace(context, gpus_per_trial=0.3)
    statuses, held = run(scheduler, context, 8, together=4)
    assert set(statuses) == {"done"}
    assert {one["gpu"] for one in held} == {"0", "1"}
    assert 2 <= most_at_once(held) <= 3


def test_a_process_in_which_a_stage_failed_gets_no_other(scheduler, context):
    statuses, (first,) = run(scheduler, context, 1, fails=True)
    assert statuses == ["failed"]
    run(scheduler, context, 4, together=2)
    assert first["process"] not in {one["process"] for one in held_by(open_store(context.store))[1:]}


@pytest.mark.parametrize(("never", "status"), [(False, "done"), (True, "out_of_memory")])
def test_a_stage_that_a_part_of_a_gpu_is_too_small_for_gets_a_whole_one_once(
    scheduler, context, never, status
):
    context = dataclasses.replace(context, gpus_per_trial=0.5)
    one = stage("large", "needs_a_gpu", never=never)
    (result,) = scheduler.run(Work([one], context, lambda event: None)).values()
    assert result.status == status
    store = open_store(context.store)
    assert runs_of(store, "large") == 2
    assert (store.failure(one.key) is None) == (status == "done")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"gpus_per_trial": 4.0}, "--gpus-per-trial 4: the largest node has 2 GPUs"),
        ({"accelerator": "H100"}, "--accelerator-type H100: no node has it; there are none that says"),
        ({"threads": 17}, "--cpus-per-trial 17: the largest node has 16 CPUs"),
    ],
)
def test_what_no_node_has_is_refused_before_work(scheduler, context, asked, said):
    with pytest.raises(UsageError, match=said):
        run(scheduler, dataclasses.replace(context, **asked), 1)
    assert held_by(open_store(context.store)) == []


def most_at_once(held):
    """How many stages were on one GPU together, at most."""
    return max(
        sum(other["gpu"] == one["gpu"] and other["began"] <= one["began"] < other["ended"] for other in held)
        for one in held
    )


def test_two_on_a_gpu_would_be_seen():
    times = itertools.count()
    held = [{"gpu": "0", "began": next(times), "ended": 9} for _ in range(2)]
    assert most_at_once(held) == 2
