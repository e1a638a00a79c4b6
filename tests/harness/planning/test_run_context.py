from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from backbones import SPECS
from backbones.loading import build_model
from harness.errors import UsageError
from harness.planning import run_context as run_contexts
from harness.planning.plan import Plan
from harness.planning.request import Machine
from harness.planning.run_context import (
    WeightFiles,
    device_of,
    find_weight_files,
    machine_faults,
    precision_faults,
    run_context,
    threads_for,
)
from harness.stages.base import RunContext, Stage
from harness.stages.synthesize import SHARD
from harness.store import open_store
from harness.suites.locations import Locations


def test_the_machines_faults_are_said_per_option():
    assert machine_faults(Machine(device="cpu")) == []
    faults = machine_faults(Machine(device="tpu", cpus_per_trial=0, batch_size=0))
    assert [fault.partition(":")[0] for fault in faults] == [
        "--cpus-per-trial 0",
        "--batch-size 0",
        "--device tpu",
    ]


def test_a_device_that_is_none_is_refused():
    assert device_of(Machine(device="cpu")) == "cpu"
    with pytest.raises(UsageError, match="one of auto, cpu, cuda"):
        device_of(Machine(device="gpu"))


def test_a_context_takes_places_and_machine(tmp_path):
    places = Locations(tmp_path, data={"imagenet": tmp_path})
    context = run_context(Machine(device="cpu", cpus_per_trial=3), places, WeightFiles({}, {}), ())
    assert (context.store, context.data) == (tmp_path, {"imagenet": tmp_path})
    assert (context.device, context.threads, context.gpus_per_trial) == ("cpu", 3, 0.0)


def test_weights_are_found_or_said_to_be_missing(tmp_path):
    places = Locations(tmp_path, weights={"deit_tiny": tmp_path / "absent"})
    files = find_weight_files(["digits_vit", "deit_tiny", "unknown"], places, download=False)
    assert list(files.found) == ["digits_vit"]
    assert "absent" in files.missing["deit_tiny"]


def test_weights_that_do_not_load_are_found_out_before_work(tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><title>scan warning</title>")
    places = Locations(tmp_path, weights={"deit_tiny": tmp_path / "page.pth"})
    files = find_weight_files(["deit_tiny"], places, download=False)
    assert files.found == {}
    assert "web page (HTML)" in files.missing["deit_tiny"]


def test_what_is_taken_of_a_file_is_noted(tmp_path):
    state = build_model(SPECS["deit_tiny"]).state_dict()
    torch.save({"model": state, "model_ema": state}, tmp_path / "x.pth")
    places = Locations(tmp_path, weights={"deit_tiny": tmp_path / "x.pth"})
    (note,) = find_weight_files(["deit_tiny"], places, download=False).notes
    assert "'model' of" in note
    assert f"--weights deit_tiny={tmp_path / 'x.pth'}::model_ema" in note


@pytest.mark.parametrize(
    ("gpus", "right"),
    [
        ("nan", "at least 0"),
        ("inf", "at least 0"),
        ("-1", "at least 0"),
        ("1e-05", "at least 0.001, the smallest part Ray knows"),
        ("half", "a number of GPUs, or auto"),
    ],
)
def test_a_number_that_is_none_is_a_fault(gpus, right):
    (fault,) = machine_faults(Machine(device="cpu", gpus_per_trial=gpus))
    assert fault == f"--gpus-per-trial {gpus}: {right}"


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"device": "cpu", "gpus_per_trial": "1.0"}, "no stage uses a GPU"),
        ({"device": "cuda", "gpus_per_trial": "1.5"}, "a stage uses one GPU, or a part of one"),
        ({"device": "cuda", "gpus_per_trial": "0.0"}, "a stage on cuda needs one GPU"),
        ({"device": "auto", "gpus_per_trial": "0"}, "a stage on cuda needs one GPU"),
        ({"device": "cpu", "gpus_per_trial": "auto"}, "no stage uses a GPU"),
        ({"device": "cpu", "accelerator_type": "H100"}, "no stage uses a GPU"),
        ({"device": "auto", "accelerator_type": "H100", "scheduler": "inline"}, "stages run here"),
        ({"device": "cuda:1", "ray_address": "auto"}, "Ray gives every stage its GPU"),
        ({"ship_code": True}, "only to a Ray cluster, with --ray-address"),
        ({"device": "cuda:0"}, "Ray gives every stage its GPU"),
        ({"device": "cuda:7", "scheduler": "inline"}, "torch sees 1 here, the last is cuda:0"),
        ({"device": "cuda:x"}, "one of auto, cpu, cuda, cuda:N"),
    ],
)
def test_gpus_that_make_no_sense_are_refused_in_a_sentence(one_gpu, asked, said):
    (fault,) = machine_faults(Machine(**asked))
    assert said in fault


@pytest.mark.parametrize(
    "asked",
    [
        {"device": "cuda"},
        {"device": "auto", "gpus_per_trial": "0.3"},
        {"device": "cpu", "gpus_per_trial": "0.0"},
        {"device": "cuda:0", "scheduler": "inline"},
        {"device": "auto", "gpus_per_trial": "auto", "accelerator_type": "H100"},
    ],
)
def test_gpus_that_make_sense_are_not(one_gpu, asked):
    assert machine_faults(Machine(**asked)) == []


def test_fast_is_refused_where_there_is_no_gpu(one_gpu):
    assert precision_faults("fast", Machine(device="cuda")) == []
    assert precision_faults("exact", Machine(device="cpu")) == []
    assert precision_faults("fast", Machine(device="tpu")) == []  # which is a fault of its own
    (fault,) = precision_faults("fast", Machine(device="cpu"))
    assert fault.startswith("precision fast: for GPUs only")


@pytest.mark.parametrize(
    ("asked", "device"),
    [
        ({"device": "auto"}, "auto"),
        ({"device": "cuda"}, "cuda"),
        ({"device": "cpu"}, "cpu"),
        ({"device": "auto", "gpus_per_trial": "0.5"}, "cuda"),
        ({"device": "auto", "accelerator_type": "H100"}, "cuda"),
    ],
)
def test_a_cluster_decides_the_device_and_not_the_drivers_torch(monkeypatch, asked, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine_faults(Machine(ray_address="auto", **asked)) == []
    assert device_of(Machine(ray_address="auto", **asked)) == device


def test_on_one_machine_torch_has_to_see_the_gpu(one_gpu, monkeypatch):
    assert device_of(Machine()) == "auto"  # Ray has the last word
    assert device_of(Machine(scheduler="inline")) == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(Machine()) == "cpu"
    with pytest.raises(UsageError, match="torch sees no GPU here"):
        device_of(Machine(device="cuda"))


@pytest.mark.parametrize(
    ("device", "gpus", "done", "threads"),
    [
        ("cpu", 0.0, 0, 4),  # four stages can run at once on 16 cores
        ("cpu", 0.0, 2, 8),
        ("cpu", 0.0, 4, 16),
        ("cuda", 1.0, 0, 16),
        ("cuda", 0.5, 0, 8),
        ("cuda", 0.3, 0, 5),
        ("auto", 0.5, 0, 8),
    ],
)
def test_threads_follow_what_is_missing_and_the_gpus(
    one_gpu, monkeypatch, tmp_path, device, gpus, done, threads
):
    monkeypatch.setattr(run_contexts, "cores", lambda: 16)
    store = open_store(tmp_path)
    trials = [SimpleNamespace(making=(f"q{n}",), evaluation=f"e{n}") for n in range(4)]
    for one in trials[:done]:
        for key in (*one.making, one.evaluation):
            store.place(key).mkdir(parents=True)
    plan = Plan(None, (*trials, SimpleNamespace(making=())), {})
    context = RunContext(tmp_path, device=device, gpus_per_trial=gpus)
    assert threads_for(plan, store, context) == threads


def test_a_set_takes_as_many_threads_as_it_has_shards_to_make(monkeypatch, tmp_path):
    monkeypatch.setattr(run_contexts, "cores", lambda: 16)
    store = open_store(tmp_path)
    shards = {f"{SHARD}{n}": f"shard{n}" for n in range(5)}
    joined = Stage("synthesize", "a set", {}, shards, "set")
    plan = Plan(None, (SimpleNamespace(making=("set", "student"), evaluation="score"),), {"set": joined})
    store.place("shard0").mkdir(parents=True)
    assert threads_for(plan, store, RunContext(tmp_path)) == 4
    store.place("set").mkdir()
    assert threads_for(plan, store, RunContext(tmp_path)) == 16
