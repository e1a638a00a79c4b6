from __future__ import annotations

import pytest

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
