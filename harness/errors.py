"""The harness's own errors, as a small tree. Each carries one string, so that it survives pickling.

HarnessError
  UsageError      what the user asked for cannot be done as asked; exit status 2
  ArtifactError   a stored artifact is missing, torn or altered
    Damaged       it is there, but torn, altered or another one
  RunCutShort     what stages run on was lost; the same command goes on; exit status 3
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from backbones.names import escaped

_TERMINAL_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, movements
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # titles, links
    r"|\x1b[ -/]*[0-~]"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but for tab and line feed, and those that turn the direction of writing."""


def printable(text: str) -> str:
    """The text without what a terminal would obey: colours, movements, control characters."""
    return _UNPRINTABLE.sub("", _TERMINAL_SEQUENCES.sub("", text))


def one_line(error: BaseException, before: str = "") -> str:
    """What somebody else's error says, fit for a sentence of ours; its class where it says nothing.

    Only what it says ahead of `before`, where that is given.
    """
    said = str(error).partition(before)[0] if before else str(error)
    return " ".join(printable(said).split()) or type(error).__name__


class HarnessError(Exception):
    """Base of all errors the harness raises on purpose."""


class UsageError(HarnessError):
    """Wrong usage; one line per fault."""

    @classmethod
    def of(cls, faults: Sequence[str]) -> UsageError:
        """One error for several faults, each on its own line, whatever a user's path in it holds."""
        return cls("\n".join(map(escaped, faults)))


class ArtifactError(HarnessError):
    """An artifact that cannot be used; the stage that makes it has to run again."""


class Damaged(ArtifactError):
    """Something stored that cannot be used; the message names the place, so that a person can delete it."""

    @classmethod
    def at(cls, place: object, why: str = "") -> Damaged:
        """The error for what lies at a path of the store."""
        return cls(f"damaged: {place}{f' ({why})' if why else ''}; delete it and run again")


class RunCutShort(HarnessError):
    """The run cannot go on, though nothing is wrong with what was asked: one sentence without a full stop."""


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
