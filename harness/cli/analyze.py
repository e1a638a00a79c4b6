"""`harness analyze`: where a teacher looks on each method's images, and what answers owe to these places."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import typer

from harness.analysis.image_sets import fetch, open_analysis
from harness.cli.options import with_options
from harness.cli.refusing import refuse_together
from harness.cli.terminal import output_console, progress_console
from harness.errors import Faults
from harness.planning.request import Machine, Places, Request, Rows, option

EPILOG = "harness analyze --backbone digits_vit --methods psaq_vit,mimiq --bits w3a3 --output analysis"


@dataclass(frozen=True)
class Measurement:
    """Which of the images are measured."""

    panel: ClassVar[str] = "What to run"
    seed: int = option(0, "--seed", help="Seed of images and students.")
    images: int = option(128, "--images", help="Images of each set that are measured, at most.", low=1)


@dataclass(frozen=True)
class AnalysisOutput:
    """How the analysis is shown, and where its plots go."""

    panel: ClassVar[str] = "Output"
    format: str = option("table", "--format", "-f", help="Format: table, md, csv or json.", metavar="NAME")
    output: str = option("analysis", "--output", "-o", help="Folder for the plots.", metavar="DIR")


@with_options(
    Rows,
    Measurement,
    Places,
    Machine,
    AnalysisOutput,
    without=(
        "seeds",
        "scope",
        "set_files",
        "oracle",
        "scheduler",
        "ray_address",
        "gpus_per_trial",
        "accelerator_type",
        "ship_code",
    ),
    defaults={"engines": ("lsq_qat",)},
    helps={
        "suite": "Settings, methods and bit-width of this suite.",
        "backbones": "The teacher; needed unless a suite names one.",
        "bits": "Bit-width of the students; default w4a4.",
        "engines": "Engine that makes every student.",
    },
)
def analyze(
    rows: Rows, measurement: Measurement, places: Places, machine: Machine, shown: AnalysisOutput
) -> None:
    """Measure attention, dependence on patches and activation ranges on real, noise and synthetic images."""
    from harness.analysis.analysing import analyse
    from harness.analysis.plots import save_plots
    from harness.analysis.report import FORMATS, render

    rows = dataclasses.replace(rows, seeds=(str(measurement.seed),))
    request = Request(rows, places, dataclasses.replace(machine, scheduler="inline"))
    folder, faults = Path(shown.output), Faults()
    if shown.format not in FORMATS:
        faults.append(f"--format {shown.format}: one of {', '.join(FORMATS)}")
    if folder.exists() and not folder.is_dir():
        faults.append(f"--output {shown.output}: a file is in the place of the folder")
    refuse_together(faults, lambda: open_analysis(request))
    progress = progress_console()
    image_sets = fetch(request, progress)
    for note in image_sets.notes:
        progress.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    analysis = analyse(image_sets, measurement.images)
    sys.stdout.write(render(analysis, shown.format, output_console()))
    folder.mkdir(parents=True, exist_ok=True)
    written = ", ".join(map(str, save_plots(analysis, folder)))
    if shown.format in ("csv", "json"):  # the others show them with the tables
        for warning in analysis.warnings:
            progress.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    progress.print(f"Plots: {written}", markup=False, highlight=False, soft_wrap=True)
    if analysis.failures:
        raise typer.Exit(1)
