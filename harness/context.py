"""Where a run happens: folders, files and devices. Nothing here is part of a stage's key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


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
