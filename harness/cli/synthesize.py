"""`harness synthesize`: make one method's images for one backbone and save them as a picture."""

from __future__ import annotations

import typer

from harness.cli import options as o

EPILOG = "harness synthesize --method psaq_vit --backbone digits_vit --output images.png"


def synthesize(
    method: str = typer.Option(..., "--method", "-m", help="The method whose images are made."),
    backbone: str = typer.Option(..., "--backbone", help="The teacher."),
    output: str = typer.Option("images.png", "--output", "-o", help="PNG file to write."),
    bits: str = typer.Option("w4a4", help="Bit-width of the student, for methods that need one."),
    engine: str = typer.Option("", help="Engine of the student, for methods that need one."),
    budget: str = typer.Option("fast", help="paper, fast or smoke."),
    seed: int = typer.Option(0, help="Seed of the synthesis."),
    count: int = typer.Option(32, min=1, help="How many images the picture shows at most."),
    set_: o.SetOption = None,
    data: o.DataOption = None,
    weights: o.WeightsOption = None,
    store: o.StoreOption = None,
    config: o.ConfigOption = None,
    plugin: o.PluginOption = None,
    device: o.DeviceOption = "auto",
    cpus_per_trial: o.CpusOption = None,
) -> None:
    """Make a method's images for a backbone and save them as a picture grid."""
    from pathlib import Path

    from backbones import SPECS
    from harness.errors import UsageError
    from harness.execution.synthetic_images import synthetic_images
    from harness.reporting.image_grids import save_grid

    console = o.console()
    folder = Path(output).absolute().parent
    if not folder.is_dir():
        raise UsageError(f"--output {output}: the folder {folder} does not exist")
    found = synthetic_images(
        o.request(
            suite="",
            methods=method,
            backbones=backbone,
            bits=bits,
            engines=engine,
            budget=budget,
            seeds=str(seed),
            assignments=set_,
            data=data,
            weights=weights,
            store=store,
            config=config,
            plugins=plugin,
            device=device,
            cpus_per_trial=cpus_per_trial,
        ),
        console,
    )
    save_grid(found.images[:count], SPECS[backbone].data, Path(output))
    losses = ", ".join(f"{name} {value:.4g}" for name, value in found.final_losses.items())
    console.print(
        f"{len(found.images)} images of {method} for {backbone} ({found.seconds:.1f} s"
        f"{', ' + losses if losses else ''}); {min(count, len(found.images))} shown in {output}",
        markup=False,
        soft_wrap=True,
    )
