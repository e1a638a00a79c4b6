"""What a piece of work costs and where it ran: wall-clock, peak memory, versions."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import re
import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.stages.base import RunContext
from harness.stages.facts import Cost, Environment
from harness.stages.precision import precision_of, unrepeatable

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


def cost_of(
    context: RunContext,
    measured: Measured,
    *,
    synthesis: float | None = None,
    quantization: float | None = None,
    evaluation: float | None = None,
) -> Cost:
    """What a block cost on the context's device; its seconds are told apart by the kind of work."""
    amounts = {
        "synthesis_seconds": synthesis,
        "quantization_seconds": quantization,
        "evaluation_seconds": evaluation,
        "peak_memory_mb": measured.peak_memory_mb,
    }
    if context.device.startswith("cuda"):
        for kind, seconds in (("synthesis", synthesis), ("quantization", quantization)):
            amounts[f"{kind}_gpu_seconds"] = None if seconds is None else seconds * context.gpus_per_trial
    known = {name: value for name, value in amounts.items() if value is not None}
    return Cost(**known, devices=dict.fromkeys(known, _device_name(context.device)))


def environment(device: str, threads: int) -> Environment:
    """Versions, device, threads and precision of this process, and which of its work does not repeat."""
    return Environment(
        packages=_versions(),
        python=platform.python_version(),
        device=_device_name(device),
        threads=threads,
        precision=precision_of(device),
        gpu_stack=_gpu_stack() if device.startswith("cuda") else {},
        unrepeatable=unrepeatable(),
    )


@functools.cache
def _versions() -> Mapping[str, str]:
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


@functools.cache
def _gpu_stack() -> Mapping[str, str]:
    """Versions of what lies between torch and the GPU; a part that does not say its version is left out."""
    import torch

    found = {"cuda": torch.version.cuda, "cudnn": _cudnn(), "driver": _driver()}
    return {name: str(version) for name, version in found.items() if version}


def _cudnn() -> int | None:
    import torch

    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return version


def _driver() -> str | None:
    """The version of the NVIDIA kernel driver, as the driver itself writes it."""
    with contextlib.suppress(OSError), open("/proc/driver/nvidia/version") as file:
        found = re.search(r"\b\d+\.\d+(\.\d+)?\b", file.readline())
        return found[0] if found else None
    return None


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
