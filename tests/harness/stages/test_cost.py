"""What a block of work costs, and where it ran."""

from __future__ import annotations

import os
import sys
import time

import pytest
import torch

from harness.stages.cost import environment, measured


def test_a_block_is_timed_and_its_memory_peak_is_its_own():
    held = torch.ones(30 * 2**20, dtype=torch.uint8)
    with measured("cpu") as small:
        time.sleep(0.05)
    with measured("cpu") as large:
        torch.ones(60 * 2**20, dtype=torch.uint8)
    assert 0.05 <= small.seconds < 5
    assert small.peak_memory_mb > 0
    if os.access("/proc/self/clear_refs", os.W_OK):  # elsewhere the peak is that of the whole process
        assert large.peak_memory_mb - small.peak_memory_mb > 40
    assert held.sum() == 30 * 2**20


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
