"""GPUs are looked for without torch where there can be none, and torch has the last word."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from harness.planning import gpus


@pytest.mark.parametrize("seen", [True, False])
def test_torch_is_asked_where_it_is_loaded(monkeypatch, seen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)
    assert gpus.sees_gpu() is seen


@pytest.mark.parametrize("driver", [True, False])
def test_torch_is_loaded_where_there_is_a_driver_alone(driver):
    code = (
        "import sys\n"
        "from harness.planning import gpus\n"
        f"gpus._has_driver = lambda: {driver}\n"
        "gpus.sees_gpu()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(driver)]


def test_what_torch_sees_has_a_driver():
    assert gpus._has_driver() or not torch.cuda.is_available()
