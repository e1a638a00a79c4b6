"""What a shell offers after an option: the names that the light registries know."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backbones import SPECS
from harness.execution.schedulers.registry import scheduler_names
from harness.suites.loading import suite_names
from harness.suites.suite import PRECISIONS
from methods.registry import engine_names, method_names
from methods.scope import SCOPES
from methods.settings import BUDGETS

Names = Callable[[], Sequence[str]]

_OFFERED: dict[str, Names] = {
    "suite": suite_names,
    "methods": method_names,
    "backbones": lambda: tuple(SPECS),
    "engines": engine_names,
    "budget": lambda: BUDGETS,
    "scope": lambda: SCOPES,
    "precision": lambda: PRECISIONS,
    "scheduler": scheduler_names,
    "device": lambda: ("auto", "cpu", "cuda"),
}
"""Field of an options dataclass -> the values to offer."""


def completer(field: str) -> Callable[[str], list[str]] | None:
    """The completion of a field's option; None where nothing is known of its values."""
    names = _OFFERED.get(field)
    if names is None:
        return None

    def complete(incomplete: str) -> list[str]:
        """The last of comma-separated words, completed."""
        before, comma, word = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(word)]

    return complete
