"""The harness's own errors, as a small tree. Each carries one string, so that it survives pickling.

HarnessError
  UsageError      what the user asked for cannot be done as asked; exit status 2
  ArtifactError   a stored artifact is missing, torn or altered
"""

from __future__ import annotations

from collections.abc import Sequence


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
