"""The harness's own errors, as a small tree. Each carries one string, so that it survives pickling.

HarnessError
  UsageError      what the user asked for cannot be done as asked; exit status 2
  ArtifactError   a stored artifact is missing, torn or altered
    Damaged       it is there, but torn, altered or another one
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence


class HarnessError(Exception):
    """Base of all errors the harness raises on purpose."""


class UsageError(HarnessError):
    """Wrong usage; one line per fault."""

    @classmethod
    def of(cls, faults: Sequence[str]) -> UsageError:
        """One error for several faults, each on its own line."""
        return cls("\n".join(faults))


class ArtifactError(HarnessError):
    """An artifact that cannot be used; the stage that makes it has to run again."""


class Damaged(ArtifactError):
    """Something stored that cannot be used; the message names the place, so that a person can delete it."""

    @classmethod
    def at(cls, place: object, why: str = "") -> Damaged:
        """The error for what lies at a path of the store."""
        return cls(f"damaged: {place}{f' ({why})' if why else ''}; delete it and run again")


class Faults(list[str]):
    """What is wrong with a request, gathered over several steps so that all of it is said together.

    faults = Faults()
    with faults.gathered():  # a UsageError in here becomes part of the list
        ...
    faults.raise_any()
    """

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep the sentences of a UsageError raised inside, and go on behind the block."""
        try:
            yield
        except UsageError as error:
            self.extend(str(error).splitlines())

    def raise_any(self) -> None:
        """Raise one UsageError with every sentence once, if there is any."""
        if self:
            raise UsageError.of(list(dict.fromkeys(self)))
