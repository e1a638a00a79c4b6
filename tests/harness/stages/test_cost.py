"""What a block of work costs, and where it ran."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.stages.cost import environment, measured

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


def test_an_environment_names_what_decides_a_number():
    found = environment("cpu", 3)
    assert set(found.packages) == {"torch", "timm", "numpy", "dfq-harness"}
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.threads == 3
    assert found.device.startswith("cpu (")
