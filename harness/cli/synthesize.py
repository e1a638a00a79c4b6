"""`harness synthesize`: make one method's images for one backbone and save them as a picture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from backbones import SPECS
from harness.cli.options import with_options
from harness.cli.terminal import output_console
from harness.errors import UsageError
from harness.execution.synthetic_images import synthetic_images
from harness.planning.request import Machine, Places, Request, Rows, option
from harness.reporting.image_grids import save_grid

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
             "batch_size"),
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
    method, backbone = _the_one(rows.methods, "--method"), _the_one(rows.backbones, "--backbone")
    folder = Path(picture.output).absolute().parent
    if not folder.is_dir():
        raise UsageError(f"--output {picture.output}: the folder {folder} does not exist")
    console = output_console()
    rows = dataclasses.replace(rows, seeds=(str(synthesis.seed),))
    found = synthetic_images(Request(rows, places, machine), console)
    save_grid(found.images[: picture.count], SPECS[backbone].data, Path(picture.output))
    losses = ", ".join(f"{name} {value:.4g}" for name, value in found.final_losses.items())
    console.print(
        f"{len(found.images)} images of {method} for {backbone} ({found.seconds:.1f} s"
        f"{', ' + losses if losses else ''}); {min(picture.count, len(found.images))} shown in "
        f"{picture.output}",
        markup=False,
        soft_wrap=True,
    )


def _the_one(names: tuple[str, ...], flag: str) -> str:
    if len(names) != 1:
        raise UsageError(f"{flag} {','.join(names)}: give exactly one name")
    return names[0]
