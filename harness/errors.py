"""The harness's own errors, as a small tree. Each carries one string, so that it survives pickling.

HarnessError
  UsageError      what the user asked for cannot be done as asked; exit status 2
  ArtifactError   a stored artifact is missing, torn or altered
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
        """One error for several faults, each on its own line, whatever a user's path in it holds."""
        return cls("\n".join(map(_on_one_line, faults)))


def _on_one_line(sentence: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in sentence)


class ArtifactError(HarnessError):
    """An artifact that cannot be used; the stage that makes it has to run again."""


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
