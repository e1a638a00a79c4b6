"""What a store promises: artifacts by content key, signals between processes, timings.

A store is shared by every process of a run, on one machine or several. It keeps plain descriptions and
tensors; what a description means is the business of `harness.stages.facts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from harness.store.uses import StoredPlan


class Artifacts(Protocol):
    """Finished stages by content key, why others gave nothing, and who makes which."""

    def write(
        self,
        key: str,
        tensors: Mapping[str, Tensor],
        meta: Mapping[str, Any],
        images: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Publish an artifact whole or not at all; an older one under the same key is replaced.

        `meta` holds plain JSON values; raises TypeError for any other. `images` lie apart: whoever reads the
        tensors does not read them.
        """
        ...

    def meta(self, key: str) -> dict[str, Any]:
        """The artifact's description; raises ArtifactError when absent, Damaged when torn or altered."""
        ...

    def tensors(self, key: str) -> dict[str, Tensor]:
        """The artifact's tensors, on the CPU; raises as `verify` does."""
        ...

    def arrays(self, key: str, prefix: str) -> dict[str, np.ndarray]:
        """Those of the artifact's tensors whose names begin so, without loading torch; raises as `verify`."""
        ...

    def images(self, key: str) -> dict[str, Tensor]:
        """The images that were written apart, or where none were the tensors; raises as `verify` does."""
        ...

    def verify(self, key: str) -> dict[str, Any]:
        """The description of an artifact that is whole and unaltered, read once.

        Raises ArtifactError unless it is there, Damaged unless it and its tensors are as they were written.
        """
        ...

    def holds(self, key: str) -> bool:
        """Whether a usable artifact is there."""
        ...

    def is_damaged(self, key: str) -> bool:
        """Whether something lies under the key that cannot be used."""
        ...

    def place(self, key: str) -> Path:
        """Where the artifact lies or would lie, for a person who has to look at it or delete it."""
        ...

    def remove(self, key: str) -> int:
        """Remove an artifact, at once for every reader; the bytes that are free now."""
        ...

    def size(self, key: str) -> int:
        """Bytes of an artifact's files; 0 where there is none."""
        ...

    def stored_keys(self) -> list[str]:
        """Keys of all artifacts, whole or not."""
        ...

    def made_at(self, key: str) -> float:
        """When an artifact was written, seconds since the epoch; 0 where there is none."""
        ...

    def write_failure(self, key: str, failure: Mapping[str, Any], traceback: str = "") -> None:
        """Remember `status` and `reason`, and where in the code; an earlier failure is replaced whole."""
        ...

    def failure(self, key: str) -> dict[str, Any] | None:
        """Why the stage failed when it last ran; None where it did not.

        `status` and `reason` are always there: what was stored and cannot be read is a failure that says so.
        """
        ...

    def traceback_file(self, key: str) -> Path | None:
        """Where the traceback of a stage that failed lies; None where there is none."""
        ...

    def clear_failure(self, key: str) -> None:
        """Forget a failure, since the stage succeeded."""
        ...

    def claim(self, key: str, claimant: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Hold the stage inside the block; waits while another live process makes it.

        `claimant` says who holds it, in plain JSON values, to those that wait.
        """
        ...

    def claimant(self, key: str) -> dict[str, Any] | None:
        """Who makes the stage now, as it said itself; None where nobody does."""
        ...


class Signals(Protocol):
    """What running stages say on the way, and what they are asked."""

    def write_progress(self, key: str, progress: Mapping[str, Any]) -> None:
        """Say how far a running stage is."""
        ...

    def progress(self, key: str) -> dict[str, Any] | None:
        """What a running stage last said; None where it said nothing or has ended."""
        ...

    def clear_progress(self, key: str) -> None:
        """Forget the progress of a stage that has ended."""
        ...

    def write_reports(self, key: str, reports: Mapping[int, float]) -> None:
        """Say what a running stage scored so far: step -> value."""
        ...

    def reports(self, key: str) -> dict[int, float]:
        """What a stage scored on the way, step -> value; empty where it said nothing."""
        ...

    def ask_to_stop(self, key: str) -> None:
        """Ask a running stage to stop at its next report or epoch."""
        ...

    def is_asked_to_stop(self, key: str) -> bool:
        """Whether the stage should stop."""
        ...

    def clear_reports(self, key: str) -> None:
        """Forget the reports of an earlier run of the stage, and a request to stop it."""
        ...


class Timings(Protocol):
    """How long stages took, for estimates."""

    def timings(self) -> dict[str, float]:
        """Seconds that a stage took, by `Stage.timing_name`, as seen on this store."""
        ...

    def add_timings(self, seen: Mapping[str, float]) -> None:
        """Merge new timings; the latest wins."""
        ...


class Uses(Protocol):
    """Who works with a store, and what runs that began on it want of it."""

    def in_use(self) -> AbstractContextManager[None]:
        """Work with the store inside the block: nobody else removes anything; waits while somebody does.

        Nothing happens where the store cannot be written.
        """
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Be the only one inside the block; raises UsageError while others work with the store."""
        ...

    def write_plan(self, plan: StoredPlan) -> None:
        """Remember a run's plan; the same one again is young again."""
        ...

    def plans(self) -> list[StoredPlan]:
        """Plans of all runs on the store, as far as they can be read."""
        ...


class Store(Artifacts, Signals, Timings, Uses, Protocol):
    """Everything that outlives a process."""

    @property
    def root(self) -> Path:
        """Folder of the store; databases, studies and pictures lie in it too."""
        ...

    def __hash__(self) -> int:
        """Stores of one root are equal and hash alike, so that what was read can be remembered by store."""
        ...

    def create(self) -> Store:
        """This store, ready to be written; raises UsageError where that is not allowed."""
        ...

    def is_writable(self) -> bool:
        """Whether anything can be kept in it, there or to be made; reading asks for nothing."""
        ...
