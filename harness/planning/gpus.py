"""Whether this machine has a GPU that torch can use, without loading torch where there can be none."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}
"""The library of CUDA's driver, which comes with the driver and never with torch."""
_ROCM = Path("/dev/kfd")


def sees_gpu() -> bool:
    """Whether torch sees a GPU in this process."""
    if "torch" not in sys.modules and not _has_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _has_driver() -> bool:
    """Whether there is a driver of GPUs; True where nothing is known of the platform."""
    if _ROCM.exists():
        return True
    try:
        ctypes.CDLL(_DRIVERS[sys.platform])
    except OSError:
        return False
    except KeyError:
        return sys.platform != "darwin"
    return True
