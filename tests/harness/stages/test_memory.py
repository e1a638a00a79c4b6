"""Memory that runs out is recognised however it is said, and then smaller parts are tried."""

from __future__ import annotations

import pytest
import torch

from harness.stages.memory import MOST_PARTS, is_out_of_memory, within_memory

SAID = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]
OTHERS = [
    ValueError("out of memory"),  # a word in somebody's message
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    KeyError("memory"),
]


@pytest.mark.parametrize("error", SAID, ids=str)
def test_every_way_to_say_it_is_recognised(error):
    assert is_out_of_memory(error)
    wrapped = ValueError("the step failed")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)):
        within_memory(lambda parts: (_ for _ in ()).throw(error))


def test_as_many_parts_are_taken_as_are_needed():
    asked = []

    def work(parts: int) -> str:
        asked.append(parts)
        if parts < 8:
            raise MemoryError
        return "made"

    assert within_memory(work) == "made"
    assert asked == [1, 2, 4, 8]


def test_it_ends_with_the_last_error():
    asked = []

    def work(parts: int) -> str:
        asked.append(parts)
        raise MemoryError(f"in {parts}")

    with pytest.raises(MemoryError, match=f"in {MOST_PARTS}"):
        within_memory(work)
    assert asked == [1, 2, 4, 8, 16, 32]


def test_what_the_failed_attempt_held_is_free_before_the_next():
    import gc
    import weakref

    held: list[weakref.ref[torch.Tensor]] = []

    def work(parts: int) -> bool:
        if parts == 2:
            gc.collect()
            return held[0]() is None
        large = torch.ones(1000)
        held.append(weakref.ref(large))
        raise MemoryError

    assert within_memory(work)
