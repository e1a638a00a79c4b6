"""Whether a cluster's nodes reach what stages need: the store, data, weights and plug-ins.

A file that the driver leaves in the store for the time of the run tells a folder that is shared from one
that has the same name alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.stages.base import RunContext

_SET_OF_WEIGHTS = "::"
"""What stands between a file of weights and the set to take from it."""


@dataclass(frozen=True)
class Needed:
    """What has to be there on a node."""

    store: Path
    mark: str
    """Name of the file that the driver left in the store."""
    paths: Mapping[str, Path]
    """What each path is, as a user gave it -> where it lies."""


@contextlib.contextmanager
def needed_by(context: RunContext) -> Iterator[Needed]:
    """What stages of this context need, as long as the block lasts."""
    mark = context.store / f".reached-{secrets.token_hex(8)}"
    mark.touch()
    try:
        yield Needed(context.store, mark.name, _paths_of(context))
    finally:
        mark.unlink(missing_ok=True)


def missing_here(needed: Needed) -> list[str]:
    """What this process does not reach, each with its path; runs on the node."""
    if not needed.store.is_dir():
        missing = [f"--store {needed.store} is not there"]
    elif not (needed.store / needed.mark).exists():
        missing = [f"--store {needed.store} is another folder than the driver's"]
    elif not os.access(needed.store, os.W_OK):
        missing = [f"--store {needed.store} cannot be written"]
    else:
        missing = []
    return [*missing, *(f"{what} is not there" for what, path in needed.paths.items() if not path.exists())]


def _paths_of(context: RunContext) -> dict[str, Path]:
    """Everything that a stage may open, under the option that names it."""
    weights = {name: Path(str(path).partition(_SET_OF_WEIGHTS)[0]) for name, path in context.weights.items()}
    return {
        **{f"--data {name}={path}": path for name, path in context.data.items()},
        **{f"--weights {name}={path}": path for name, path in weights.items()},
        **{f"--plugin {path}": path for path in context.plugins},
    }
