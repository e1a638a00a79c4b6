"""Memory that runs out: how it is recognised, and further attempts that take batches in smaller parts."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import TypeVar

MOST_PARTS = 32
"""Parts after which a stage is given up."""

_SAID = re.compile(
    r"out of memory"  # of CUDA's allocator, its driver, Triton and cuDNN's front end
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE|CUFFT)(_STATUS)?_ALLOC_FAILED"
    r"|CUBLAS_STATUS_NOT_INITIALIZED"  # what a handle says for which no memory was left
    r"|cudaErrorMemoryAllocation"
    r"|can't allocate memory|not enough memory",
    re.IGNORECASE,
)

_Made = TypeVar("_Made")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says that memory ran out."""
    import torch

    kinds = (MemoryError, torch.OutOfMemoryError)
    told = isinstance(error, kinds) or (isinstance(error, RuntimeError) and _SAID.search(str(error)))
    cause = error.__cause__
    return bool(told) or (cause is not None and is_out_of_memory(cause))


def within_memory(work: Callable[[int], _Made]) -> _Made:
    """What `work(parts)` gives for the fewest parts, 1, 2, 4 and so on, for which memory suffices.

    Raises the last error where `MOST_PARTS` are still too few, and any other error at once.
    """
    parts = 1
    while True:
        try:
            return work(parts)
        except Exception as error:
            if parts == MOST_PARTS or not is_out_of_memory(error):
                raise
        # Out of the handler, the failed attempt's frames no longer hold its tensors.
        parts *= 2
        _free()


def _free() -> None:
    """Give back what the failed attempt left in caches."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # nothing happens where no GPU was used
