"""`harness synthesize`: make one method's images for one backbone and save them as a picture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from backbones import SPECS
from harness.cli.options import with_options
from harness.cli.refusing import refuse_together
from harness.cli.terminal import output_console
from harness.errors import Faults
from harness.execution.synthetic_images import synthetic_images
from harness.planning.request import Machine, Places, Request, Rows, option
from harness.planning.session import open_workbench
from harness.reporting.image_grids import save_grid
from results.figures import duration, setting

EPILOG = "harness synthesize --method psaq_vit --backbone digits_vit --output images.png"


@dataclass(frozen=True)
class Synthesis:
    """The draw of the images."""

    panel: ClassVar[str] = "What to run"
    seed: int = option(0, "--seed", help="Seed of the synthesis.")


@dataclass(frozen=True)
class Picture:
    """The picture of the images."""

    panel: ClassVar[str] = "Output"
    output: str = option("images.png", "--output", "-o", help="PNG file to write.", metavar="FILE")
    count: int = option(32, "--count", help="How many images the picture shows at most.", low=1)


@with_options(
    Rows,
    Synthesis,
    Places,
    Machine,
    Picture,
    without=("suite", "seeds", "scope", "set_files", "oracle", "scheduler", "ray_address", "gpus_per_trial",
             "accelerator_type", "ship_code", "batch_size"),
    required=("methods", "backbones"),
    defaults={"bits": ("w4a4",), "budget": "fast"},
    helps={
        "methods": "The method whose images are made.",
        "backbones": "The teacher.",
        "bits": "Bit-width of the student, for methods that need one.",
        "engines": "Engine of the student, for methods that need one.",
    },
)  # fmt: skip
def synthesize(rows: Rows, synthesis: Synthesis, places: Places, machine: Machine, picture: Picture) -> None:
    """Make a method's images for a backbone and save them as a picture grid."""
    rows = dataclasses.replace(rows, seeds=(str(synthesis.seed),))
    request = Request(rows, places, dataclasses.replace(machine, scheduler="inline"))
    console, faults = output_console(), Faults()
    faults += [*_one_name(rows.methods, "--method"), *_one_name(rows.backbones, "--backbone")]
    folder = Path(picture.output).absolute().parent
    if not folder.is_dir():
        faults.append(f"--output {picture.output}: the folder {folder} does not exist")
    refuse_together(faults, lambda: open_workbench(request))
    (method,), (backbone,) = rows.methods, rows.backbones
    found = synthetic_images(request, console)
    save_grid(found.images[: picture.count], SPECS[backbone].data, Path(picture.output))
    for note in found.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    losses = ", ".join(f"{name} {setting(value)}" for name, value in found.final_losses.items())
    console.print(
        f"{len(found.images)} images of {method} for {backbone} ({duration(found.seconds)}"
        f"{', ' + losses if losses else ''}); {min(picture.count, len(found.images))} shown in "
        f"{picture.output}",
        markup=False,
        soft_wrap=True,
    )


def _one_name(names: tuple[str, ...], flag: str) -> list[str]:
    """The fault of an option that takes one name; empty where it has one."""
    return [] if len(names) == 1 else [f"{flag} {','.join(names)}: give exactly one name"]
