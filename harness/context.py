"""Where a run happens: folders, files and devices. Nothing here is part of a stage's key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn

    from backbones import Backbone
    from harness.store import Store


class Watch(Protocol):
    """Scores a student while it trains, for a search that may stop it; leaves no trace in the answer."""

    @property
    def reports(self) -> int:
        """At most so many values per training, equally spaced over the epochs."""
        ...

    def score(self, student: nn.Module, teacher: Backbone, context: RunContext, store: Store) -> float:
        """The value of the student as it is now."""
        ...


@dataclass(frozen=True)
class RunContext:
    """Everything a stage needs beside its settings; travels to workers as it is."""

    store: Path
    """Folder of the store."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """Backbone -> weight file, resolved."""
    data: Mapping[str, Path] = field(default_factory=dict)
    """Data name -> folder, as in `--data imagenet=DIR`."""
    plugins: tuple[Path, ...] = ()
    """Plug-in files that workers load first."""
    device: str = "cpu"
    threads: int = 1
    """CPU threads per stage."""
    gpus_per_trial: float = 0.0
    batch_size: int = 32
    """Images per forward pass in evaluation and calibration."""
    watch: Watch | None = None
    """What a search looks at while students train."""
