"""What a user asks for, as typed: which rows, where things lie, on what machine. Checks nothing.

Each field is declared once, with its option's flags and help; `harness.cli.options` builds the command line
from these dataclasses, and Python code fills them by hand:

    Request(Rows(suite="digits_w4a4", seeds=("0", "1")), Places(store="results"), Machine(device="cpu"))
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar


def option(
    default: Any, *flags: str, help: str, commas: bool = False, low: float | None = None, metavar: str = ""
) -> Any:
    """A dataclass field that is a command-line option; `commas` marks a comma-separated list of words.

    Without flags the option is named after the field. `low` is the lowest valid number.
    """
    metadata = {"flags": flags, "help": help, "commas": commas, "low": low, "metavar": metavar}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Rows:
    """What to run: a suite, narrowed and changed."""

    panel: ClassVar[str] = "What to run"
    suite: str = option("", "--suite", "-s", help="A suite's name, or a YAML file.", metavar="NAME")
    methods: tuple[str, ...] = option(
        (),
        "--methods",
        "--method",
        "-m",
        help="Only these methods, comma-separated.",
        commas=True,
        metavar="NAMES",
    )
    backbones: tuple[str, ...] = option(
        (),
        "--backbones",
        "--backbone",
        help="Only these backbones, comma-separated.",
        commas=True,
        metavar="NAMES",
    )
    bits: tuple[str, ...] = option(
        (), "--bits", help="Only these bit-widths: w4a4,w4a8.", commas=True, metavar="BITS"
    )
    seeds: tuple[str, ...] = option((), "--seeds", help="Only these seeds: 0,1,2.", commas=True, metavar="N")
    engines: tuple[str, ...] = option(
        (),
        "--engines",
        "--engine",
        help="Run the methods with these engines instead of their own.",
        commas=True,
        metavar="NAMES",
    )
    budget: str | None = option(
        None, "--budget", help="Budget of synthesis and training: paper, fast or smoke.", metavar="NAME"
    )
    scope: str | None = option(
        None,
        "--scope",
        help="What is quantized: whole, heads_8bit or backbone (heads in full precision).",
        metavar="NAME",
    )
    precision: str | None = option(
        None,
        "--precision",
        help="How a GPU computes: exact (float32, the same bits each time) or fast (TF32).",
        metavar="NAME",
    )
    assignments: tuple[str, ...] = option(
        (),
        "--set",
        help="Change a setting: method.field=value, engine.field=value or method.engine.field=value.",
        metavar="SETTING",
    )
    set_files: tuple[str, ...] = option(
        (), "--set-file", help="Settings that `harness tune` found: its best.yaml.", metavar="FILE"
    )
    plugins: tuple[str, ...] = option(
        (), "--plugin", help="A Python file with a method or an engine of your own.", metavar="FILE"
    )
    oracle: bool = option(
        False, "--oracle", help="Also score every epoch on the report split, as a marked column."
    )


@dataclass(frozen=True)
class Places:
    """Where data, weights and results lie."""

    panel: ClassVar[str] = "Where things lie"
    data: tuple[str, ...] = option(
        (),
        "--data",
        help="Where data lie: imagenet=DIR (holding val/), coco=DIR, images=DIR.",
        metavar="NAME=DIR",
    )
    weights: tuple[str, ...] = option(
        (),
        "--weights",
        help="A backbone's weights: deit_tiny=FILE, or FILE::model_ema for one of several sets in a file.",
        metavar="NAME=FILE",
    )
    store: str | None = option(None, "--store", help="Folder of results; default dfq-store.", metavar="DIR")
    config: str | None = option(
        None, "--config", help="YAML file with data, weights and store; default harness.yaml.", metavar="FILE"
    )


@dataclass(frozen=True)
class Machine:
    """How the work is done; no field of it changes an answer."""

    panel: ClassVar[str] = "How it runs"
    scheduler: str = option(
        "ray",
        "--scheduler",
        help="Where stages run: ray (workers in parallel) or inline (this process).",
        metavar="NAME",
    )
    ray_address: str | None = option(
        None, "--ray-address", help="Address of a running Ray cluster.", metavar="HOST:PORT"
    )
    ship_code: bool = option(
        False,
        "--ship-code",
        help="Send this project and the plug-ins to nodes of the Ray cluster that lack them.",
    )
    device: str = option(
        "auto", "--device", help="Where models run: auto, cpu, cuda or cuda:N.", metavar="NAME"
    )
    cpus_per_trial: int | None = option(
        None, "--cpus-per-trial", help="CPU threads per stage; default fills the cores.", low=1
    )
    gpus_per_trial: str | None = option(
        None,
        "--gpus-per-trial",
        help="GPUs per stage; 0.5 puts two stages on one GPU, auto as many as are estimated to fit.",
        metavar="N",
    )
    accelerator_type: str | None = option(
        None,
        "--accelerator-type",
        help="Only GPUs of this kind, as Ray names it: H100, A100, L4.",
        metavar="NAME",
    )
    stage_timeout: float | None = option(
        None,
        "--stage-timeout",
        help="Seconds after which a stage is ended and fails; default 20 times what its like took, at least "
        "an hour; 0: never.",
        low=0,
    )
    batch_size: int = option(32, "--batch-size", help="Images per forward pass in evaluation.", low=1)


@dataclass(frozen=True)
class Request:
    """Everything that chooses what is run, where and how."""

    rows: Rows = field(default_factory=Rows)
    places: Places = field(default_factory=Places)
    machine: Machine = field(default_factory=Machine)
