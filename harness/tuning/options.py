"""How a search is done, as typed; each field is declared once, with its option's flags and help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.planning.request import option


@dataclass(frozen=True)
class TuneOptions:
    """How to search."""

    panel: ClassVar[str] = "How to search"

    trials: int = option(
        50, "--trials", help="Tries of the study, those that score the best few again included.", low=1
    )
    seconds: float | None = option(
        None,
        "--budget-seconds",
        help="Seconds of search per method; a try that ends later does not count.",
        low=1,
    )
    sampler: str = option("tpe", "--sampler", help="tpe, gp, random, grid or nsga2.")
    pruner: str | None = option(
        None, "--pruner", help="median (the default), hyperband or none; several objectives are not pruned."
    )
    objective: str | None = option(
        None,
        "--objective",
        help="closeness to the teacher (data-free; the default), agreement with it (so on detectors) or "
        "accuracy on the tuning split, with costs beside it as in accuracy,seconds: seconds, gpu_seconds, "
        "peak_memory_mb.",
    )
    space: str | None = option(
        None, "--space", help="YAML file that narrows or widens what is searched.", metavar="FILE"
    )
    grid_points: int = option(3, "--grid-points", help="Values of each range under --sampler grid.", low=2)
    study: str | None = option(
        None, "--study", help="Name of the study; default from what is searched.", metavar="NAME"
    )
    storage: str | None = option(
        None,
        "--study-storage",
        help="postgresql://USER@HOST/DATABASE or sqlite:///FILE; default a journal in the store.",
        metavar="URL",
    )
    resume: bool = option(False, "--resume", help="Go on with a study, or share it with a running search.")
    jobs: int | None = option(
        None, "--jobs", help="Tries at once; 1 repeats exactly. The default fills the cores.", low=1
    )
    seed: int = option(0, "--seed", help="Seed of the sampler.")
    probe: str | None = option(
        None,
        "--probe",
        help="Method whose images teacher and students answer; default mimiq, on detectors psaq_vit.",
        metavar="METHOD",
    )
    final_seeds: Sequence[int] = ()
    """Seeds of default against best; empty takes three that no try used."""
    equally: bool = False
    """Whether several methods are searched with the same budget each."""
