"""What a piece of work costs and where it ran: wall-clock, peak memory, versions."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass

from harness.stages.facts import Environment

_PACKAGES = ("torch", "timm", "numpy", "dfq-harness")


@dataclass
class Measured:
    """What a `measured` block took; filled when the block ends."""

    seconds: float = 0.0
    """Wall-clock."""
    peak_memory_mb: float = 0.0
    """Peak of the process on a CPU, of the allocator on a GPU."""


@contextlib.contextmanager
def measured(device: str) -> Iterator[Measured]:
    """Measure the block; on a GPU the device is synchronised at both ends."""
    cost = Measured()
    _reset_peak(device)
    start = time.perf_counter()
    try:
        yield cost
    finally:
        _synchronize(device)
        cost.seconds = time.perf_counter() - start
        cost.peak_memory_mb = _peak_mb(device)


@functools.cache
def environment(device: str, threads: int) -> Environment:
    """Versions, device and threads of this process."""
    return Environment(
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
        python=platform.python_version(),
        device=_device_name(device),
        threads=threads,
    )


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()})"


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        # Linux forgets the resident peak when 5 is written here; elsewhere the peak is the process's.
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def _peak_mb(device: str) -> float:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
