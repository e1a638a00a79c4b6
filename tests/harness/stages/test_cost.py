"""What a block of work costs, and where it ran."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.stages.base import RunContext
from harness.stages.cost import Measured, cost_of, environment, measured

_IN_A_FRESH_PROCESS = """
import time
import torch
from harness.stages.cost import measured

with measured("cpu") as small:
    time.sleep(0.05)
with measured("cpu") as large:
    torch.ones(300 * 2**20, dtype=torch.uint8)
print(small.seconds, small.peak_memory_mb, large.peak_memory_mb)
"""


def test_a_block_is_timed_and_what_it_allocates_is_in_its_peak():
    # A process of its own: elsewhere an earlier peak of the tests may stand above everything here.
    ended = subprocess.run(
        [sys.executable, "-c", _IN_A_FRESH_PROCESS], capture_output=True, text=True, check=True
    )
    seconds, small_mb, large_mb = map(float, ended.stdout.split())
    assert 0.05 <= seconds < 5
    assert small_mb > 0
    assert large_mb - small_mb > 150


def test_a_block_that_fails_is_measured_too():
    with pytest.raises(ValueError), measured("cpu") as cost:
        raise ValueError
    assert cost.seconds > 0
    assert cost.peak_memory_mb > 0


@pytest.mark.parametrize(("gpus", "held"), [(1.0, 8.0), (0.25, 2.0)])
def test_gpu_seconds_count_the_part_of_a_gpu_that_was_held(monkeypatch, gpus, held):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "a GPU")
    context = RunContext(store=Path("unused"), device="cuda", gpus_per_trial=gpus)
    cost = cost_of(context, Measured(10.0, 100.0), synthesis=8.0)
    assert (cost.synthesis_seconds, cost.synthesis_gpu_seconds, cost.quantization_gpu_seconds) == (
        8,
        held,
        None,
    )
    assert set(cost.devices.values()) == {"a GPU"}


def test_a_cpu_has_no_gpu_seconds():
    cost = cost_of(RunContext(store=Path("unused")), Measured(3.0, 100.0), quantization=2.0)
    assert cost.known() == {"quantization_seconds": 2.0, "peak_memory_mb": 100.0}
    assert cost.making_gpu_seconds is None


def test_an_environment_names_what_decides_a_number():
    found = environment("cpu", 3)
    assert set(found.packages) == {"torch", "timm", "numpy", "dfq-harness"}
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.threads == 3
    assert found.device.startswith("cpu (")
