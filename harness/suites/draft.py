"""A suite on its way from a file to a plan: what it is so far, where each part came from, what was wrong.

Reading and changing a suite never stops at a fault; the draft carries it along, so that all are reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.suites import checks
from harness.suites.suite import Suite


@dataclass(frozen=True)
class Draft:
    """A suite under change, with the faults met so far."""

    suite: Suite
    origins: Mapping[str, str] = field(default_factory=dict)
    """Path of a field, such as `overrides.maskaq` -> where its value was given: `mine.yaml:12`, `--set`.
    The empty path stands for every field that is not listed."""
    faults: tuple[str, ...] = ()
    """Sentences about what could not be read, each with its origin in front."""
    unsure: frozenset[str] = frozenset()
    """Fields whose given value could not be read. They hold a stand-in, about which no fault is reported."""
    notes: tuple[str, ...] = ()
    """What the user should know about how the suite was understood."""

    def changed(self, origins: Mapping[str, str], **values: Any) -> Draft:
        """This draft with some of the suite's fields replaced, and where the new values were given."""
        return dataclasses.replace(
            self,
            suite=dataclasses.replace(self.suite, **values),
            origins={**self.origins, **origins},
            unsure=self.unsure - set(values),
        )

    def faulty(self, faults: Iterable[str], unsure: Iterable[str] = ()) -> Draft:
        """This draft with further faults, and the fields that could not be read because of them."""
        return dataclasses.replace(
            self, faults=(*self.faults, *faults), unsure=self.unsure | frozenset(unsure)
        )

    def origin(self, path: str) -> str:
        """Where the value at that path was given: the origin of the path or of what contains it."""
        while path not in self.origins and path:
            path = path.rpartition(".")[0]
        return self.origins.get(path, self.suite.name)

    def all_faults(self) -> list[str]:
        """What could not be read and what is wrong with the rest, each sentence once, with its origin."""
        found = [
            f"{self.origin(path)}: {sentence}"
            for path, sentence in checks.faults(self.suite)
            if path not in self.unsure
        ]
        return list(dict.fromkeys([*self.faults, *found]))
