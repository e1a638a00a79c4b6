"""The syncs of a real CUDA device, counted where torch tells of them, in the form of the pretended one."""

from __future__ import annotations

import warnings
from collections import Counter
from types import TracebackType

import torch

from tests.pretend_cuda.cases import line_of_project

AT_HAND = torch.cuda.is_available()
"""Whether torch sees a GPU here."""
CARD = torch.device("cuda")


class Card:
    """The device, for as long as the block lasts, with every wait of the host counted."""

    def __init__(self) -> None:
        self.places: Counter[str] = Counter()

    @property
    def waits(self) -> int:
        """How often the host waited for the device."""
        return self.places.total()

    def __enter__(self) -> Card:
        self._kept = warnings.catch_warnings()
        self._kept.__enter__()
        warnings.filterwarnings("always", message="called a synchronizing CUDA operation")
        self._show = warnings.showwarning

        def note(message: Warning | str, *place: object, **more: object) -> None:
            if "called a synchronizing CUDA operation" in str(message):
                self.places[line_of_project()] += 1

        warnings.showwarning = note  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        torch.cuda.set_sync_debug_mode("default")
        self._kept.__exit__(kind, error, traceback)

    def forget(self) -> None:
        """Count from here."""
        self.places.clear()
