"""How exactly a GPU computes: set for each stage, never inherited, and read back for its record.

    exact   float32 throughout, and algorithms that give the same bits each time on one device
    fast    TF32 in matrix products and convolutions, and whatever algorithms are quickest

A CPU knows one precision. A few operations have no algorithm that repeats itself on a GPU: they run as they
are, and the record names them.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping

EXACT, FAST = "exact", "fast"

_UNREPEATABLE = re.compile(r"^(\S+).{0,60}? does not have a deterministic implementation")
_ALSO_UNREPEATABLE = re.compile(r"^(.{1,60}?) (?:defaults to|using) .*non-?deterministic", re.IGNORECASE)
_met: dict[str, None] = {}
"""Operations of the stage under way that do not repeat themselves, in the order in which they were met."""


@contextlib.contextmanager
def computing(precision: str, device: str) -> Iterator[None]:
    """Compute like that within the block; what was set before comes back afterwards.

    Raises ValueError where `fast` is asked of a device that is no GPU: a cluster's node, say, that has none.
    """
    _met.clear()
    if not device.startswith("cuda"):
        if precision == FAST:
            raise ValueError(f"precision fast is for GPUs, and this worker computes on {device}")
        yield
        return
    # cuBLAS reads it when its first handle is made; without it the same sum may be taken in another order.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = _settings()
    _set(
        {
            "matmul": "tf32" if precision == FAST else "ieee",
            "conv": "tf32" if precision == FAST else "ieee",
            "benchmark": precision == FAST,
            "cudnn": precision != FAST,
            "deterministic": precision != FAST,
            "warn_only": True,
            "fill": False,
            # Its backward adds up in any order while torch only warns of such operations.
            "blockwise_attention": precision == FAST,
        }
    )
    try:
        with _noting_unrepeatable():
            yield
    finally:
        _set(before)


def precision_of(device: str) -> str:
    """The precision that is set now, as torch says it."""
    return FAST if device.startswith("cuda") and _settings()["matmul"] == "tf32" else EXACT


def unrepeatable() -> tuple[str, ...]:
    """Operations of this stage whose bits may differ when it runs again on the same device."""
    return tuple(_met)


def _settings() -> Mapping[str, str | bool]:
    import torch

    return {
        "matmul": torch.backends.cuda.matmul.fp32_precision,
        "conv": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        "benchmark": torch.backends.cudnn.benchmark,
        "cudnn": torch.backends.cudnn.deterministic,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "blockwise_attention": torch.backends.cuda.mem_efficient_sdp_enabled(),  # type: ignore[no-untyped-call]
    }


def _set(wanted: Mapping[str, str | bool]) -> None:
    import torch

    torch.backends.cuda.matmul.fp32_precision = str(wanted["matmul"])
    torch.backends.cudnn.conv.fp32_precision = wanted["conv"]  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = bool(wanted["benchmark"])
    torch.backends.cudnn.deterministic = bool(wanted["cudnn"])
    torch.use_deterministic_algorithms(bool(wanted["deterministic"]), warn_only=bool(wanted["warn_only"]))
    torch.utils.deterministic.fill_uninitialized_memory = wanted["fill"]  # type: ignore[attr-defined]
    torch.backends.cuda.enable_mem_efficient_sdp(bool(wanted["blockwise_attention"]))


@contextlib.contextmanager
def _noting_unrepeatable() -> Iterator[None]:
    """Keep the names of operations that torch warns of; every other warning is shown as before."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=".*deterministic.*")
        show = warnings.showwarning

        def note(message: Warning | str, *place: object, **more: object) -> None:
            found = _UNREPEATABLE.match(str(message)) or _ALSO_UNREPEATABLE.match(str(message))
            if found is None:
                show(message, *place, **more)  # type: ignore[arg-type]
            else:
                _met.setdefault(found[1])

        warnings.showwarning = note
        yield
