"""`harness analyze`: where a teacher looks on each method's images, and what its students make of them."""

from __future__ import annotations

import sys

import typer

from harness.cli import options as o

EPILOG = "harness analyze --backbone digits_vit --methods psaq_vit,mimiq --bits w3a3 --output analysis"


def analyze(
    suite: str = typer.Option("", "--suite", "-s", help="Settings, methods and bit-width of this suite."),
    backbone: str = typer.Option("", "--backbone", help="The teacher; needed unless a suite names one."),
    methods: o.MethodsOption = "",
    bits: str = typer.Option("", help="Bit-width of the students; default w4a4."),
    engine: str = typer.Option("lsq_qat", help="Engine that makes every student."),
    budget: o.BudgetOption = None,
    seed: int = typer.Option(0, help="Seed of images and students."),
    images: int = typer.Option(128, min=1, help="Images of each set that are measured, at most."),
    set_: o.SetOption = None,
    data: o.DataOption = None,
    weights: o.WeightsOption = None,
    store: o.StoreOption = None,
    config: o.ConfigOption = None,
    plugin: o.PluginOption = None,
    device: o.DeviceOption = "auto",
    cpus_per_trial: o.CpusOption = None,
    batch_size: o.BatchOption = 32,
    format: str = typer.Option("table", "--format", "-f", help="table, md, csv or json."),
    output: str = typer.Option("analysis", "--output", "-o", help="Folder for the plots."),
) -> None:
    """Measure attention, dependence on patches and activation ranges on real, noise and synthetic images."""
    from pathlib import Path

    from rich.console import Console

    from harness.analysis.image_sets import fetch
    from harness.analysis.plots import save_plots
    from harness.analysis.report import FORMATS, analyse, render
    from harness.errors import UsageError

    if format not in FORMATS:
        raise UsageError(f"--format {format}: one of {', '.join(FORMATS)}")
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {output}: a file is in the place of the folder")
    progress = Console(stderr=True)
    request = o.request(
        suite=suite,
        methods=methods,
        backbones=backbone,
        bits=bits,
        seeds=str(seed),
        engines=engine,
        budget=budget,
        assignments=set_,
        data=data,
        weights=weights,
        store=store,
        config=config,
        plugins=plugin,
        device=device,
        cpus_per_trial=cpus_per_trial,
        batch_size=batch_size,
    )
    analysis = analyse(fetch(request, progress), images)
    sys.stdout.write(render(analysis, format, o.console()))
    folder.mkdir(parents=True, exist_ok=True)
    written = ", ".join(map(str, save_plots(analysis, folder)))
    progress.print(f"Plots: {written}", markup=False, highlight=False, soft_wrap=True)
    if analysis.failures:
        raise typer.Exit(1)
