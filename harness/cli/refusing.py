"""Says the faults of a verb's own options together with those of the request that it would open."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import Faults


def refuse_together(faults: Faults, check_request: Callable[[], object]) -> None:
    """Raise a verb's own faults with those that `check_request` raises; do nothing where it has none.

    A verb without faults of its own opens its request next, which then says what is wrong with it.
    """
    if faults:
        with faults.gathered():
            check_request()
        faults.raise_any()
