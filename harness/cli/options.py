"""The command-line options that several verbs share, and how they become a request."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from harness.execution.schedulers.base import Scheduler
    from harness.planning.request import Request
    from harness.planning.session import Session

SuiteOption = Annotated[str, typer.Option("--suite", "-s", help="A suite's name, or a YAML file.")]
MethodsOption = Annotated[
    str, typer.Option("--methods", "--method", "-m", help="Only these methods, comma-separated.")
]
BackbonesOption = Annotated[
    str, typer.Option("--backbones", "--backbone", help="Only these backbones, comma-separated.")
]
BitsOption = Annotated[str, typer.Option("--bits", help="Only these bit-widths: w4a4,w4a8.")]
SeedsOption = Annotated[str, typer.Option("--seeds", help="Only these seeds: 0,1,2.")]
EnginesOption = Annotated[
    str,
    typer.Option("--engine", "--engines", help="Run the methods with these engines instead of their own."),
]
BudgetOption = Annotated[str | None, typer.Option("--budget", help="paper, fast or smoke.")]
ScopeOption = Annotated[
    str | None,
    typer.Option(
        "--scope", help="What is quantized: whole, heads_8bit or backbone (heads in full precision)."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="method.field=value, engine.field=value or method.engine.field=value."),
]
SetFileOption = Annotated[
    list[str] | None, typer.Option("--set-file", help="Settings that `harness tune` found: its best.yaml.")
]
DataOption = Annotated[
    list[str] | None, typer.Option("--data", help="imagenet=DIR (holding val/), images=DIR: where data lie.")
]
WeightsOption = Annotated[
    list[str] | None, typer.Option("--weights", help="deit_tiny=FILE: a backbone's weights.")
]
StoreOption = Annotated[str | None, typer.Option("--store", help="Folder of results; default dfq-store.")]
ConfigOption = Annotated[
    str | None, typer.Option("--config", help="YAML file with data, weights, store; default harness.yaml.")
]
PluginOption = Annotated[
    list[str] | None, typer.Option("--plugin", help="A Python file with a method or an engine of yours.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
CpusOption = Annotated[
    int | None,
    typer.Option("--cpus-per-trial", min=1, help="CPU threads per stage; default fills the cores."),
]
GpusOption = Annotated[
    float | None, typer.Option("--gpus-per-trial", min=0, help="GPUs per stage; 0.5 puts two on one GPU.")
]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images per forward in evaluation.")]
OracleOption = Annotated[
    bool, typer.Option("--oracle", help="Also score every epoch on the report split, as a marked column.")
]
SchedulerOption = Annotated[
    str, typer.Option("--scheduler", help="ray (workers in parallel) or inline (this process).")
]
RayAddressOption = Annotated[str | None, typer.Option("--ray-address", help="An existing Ray cluster.")]
TrackingOption = Annotated[
    str | None, typer.Option("--tracking-uri", help="An MLflow server; default a SQLite file in the store.")
]


_PIPED_WIDTH = 120


def console() -> Console:
    """Standard output; wide enough for a leaderboard where it is no terminal."""
    from rich.console import Console

    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=max(made.width, _PIPED_WIDTH))


def split(text: str) -> list[str]:
    """Comma-separated words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def request(**options: Any) -> Request:
    """A request of the options a verb has; texts with commas become lists."""
    import dataclasses

    from harness.planning.request import Machine, Places, Request, Rows

    for name in ("methods", "backbones", "bits", "seeds", "engines"):
        options[name] = tuple(split(options.get(name) or ""))
    for name in ("assignments", "set_files", "data", "weights", "plugins"):
        options[name] = tuple(options.get(name) or ())

    def part(kind: Any) -> Any:
        return kind(**{f.name: options[f.name] for f in dataclasses.fields(kind) if f.name in options})

    return Request(part(Rows), part(Places), part(Machine))


def scheduler_of(name: str, ray_address: str | None) -> Scheduler:
    """The scheduler of that name, made when its first stage runs; raises UsageError for another name."""
    from harness.errors import UsageError
    from harness.execution.schedulers.lazy import LazyScheduler

    def make() -> Scheduler:
        if name == "inline":
            from harness.execution.schedulers.inline import InlineScheduler

            return InlineScheduler()
        from harness.execution.schedulers.ray_tasks import RayScheduler

        made = RayScheduler(ray_address)
        signal.signal(signal.SIGTERM, _interrupt)  # ray.init installs its own
        return made

    if name not in ("ray", "inline"):
        raise UsageError(f"--scheduler {name}: one of ray, inline")
    return LazyScheduler(make)


@contextlib.contextmanager
def stoppable(console: Console, what_is_kept: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM inside end with status 130, what is kept, and the command to go on with."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        command = " ".join(["harness", *sys.argv[1:]])
        console.print(f"stopped. {what_is_kept}\n  {command}", markup=False)
        raise typer.Exit(130) from None


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def refuse_unreachable(uri: str, suite: str) -> None:
    """A tracking server that cannot be used is said before hours of work, not after; raises UsageError."""
    from harness.errors import UsageError
    from results.tracking import Tracker, TrackingError

    try:
        Tracker(uri).load(suite)
    except TrackingError as error:
        raise UsageError(str(error)) from None


def tracking_uri(session: Session, given: str | None) -> str:
    """The MLflow database of a session: the given server, or the store's own file."""
    from results.tracking import local_uri

    return given or local_uri(session.store.root)


def narrowing(chosen: Request) -> str:
    """The options of a request that choose rows and places, as one would type them again."""
    words = ["--suite", chosen.rows.suite]
    for option in ("methods", "backbones", "bits", "seeds", "engines"):
        values = getattr(chosen.rows, option)
        if values:
            words += [f"--{option}", ",".join(values)]
    for option in ("budget", "scope"):
        if getattr(chosen.rows, option):
            words += [f"--{option}", getattr(chosen.rows, option)]
    settings = (("set-file", chosen.rows.set_files), ("set", chosen.rows.assignments))
    pairs = (*settings, ("data", chosen.places.data), ("weights", chosen.places.weights))
    for option, values in (*pairs, ("plugin", chosen.rows.plugins)):
        for value in values:
            words += [f"--{option}", value]
    for option in ("store", "config"):
        if getattr(chosen.places, option):
            words += [f"--{option}", getattr(chosen.places, option)]
    return shlex.join(words + (["--oracle"] if chosen.rows.oracle else []))
