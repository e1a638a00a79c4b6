from __future__ import annotations

import pytest
import torch

from backbones import SPECS
from backbones.loading import build_model
from harness.errors import UsageError
from harness.planning.request import Machine
from harness.planning.run_context import (
    WeightFiles,
    device_of,
    find_weight_files,
    machine_faults,
    run_context,
)
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
    assert device_of("cpu") == "cpu"
    with pytest.raises(UsageError, match="one of auto, cpu, cuda"):
        device_of("gpu")


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


@pytest.mark.parametrize("gpus", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_a_fault(gpus):
    (fault,) = machine_faults(Machine(device="cpu", gpus_per_trial=gpus))
    assert fault == f"--gpus-per-trial {gpus}: at least 0"
