"""What a piece of work costs and where it ran: wall-clock, peak memory, versions."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass

_PACKAGES = ("torch", "timm", "numpy", "dfq-harness")


@dataclass
class Cost:
    """Filled when the `measured` block ends."""

    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    """Of the process on CPU, of the allocator on a GPU."""


@contextlib.contextmanager
def measured(device: str) -> Iterator[Cost]:
    """Measure the block; on a GPU the device is synchronised at both ends."""
    cost = Cost()
    _reset_peak(device)
    start = time.perf_counter()
    try:
        yield cost
    finally:
        _synchronize(device)
        cost.seconds = time.perf_counter() - start
        cost.peak_memory_mb = _peak_mb(device)


@functools.cache
def environment(device: str, threads: int) -> dict[str, str]:
    """Versions, device and threads, as text."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        **versions,
        "python": platform.python_version(),
        "device": _device_name(device),
        "threads": str(threads),
    }


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
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
