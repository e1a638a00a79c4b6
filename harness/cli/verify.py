"""`harness verify`: whether a bundle's records agree with themselves, and with trials made again here."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import typer

from backbones import sha256_of_weights
from harness.cli.options import with_options
from harness.cli.terminal import output_console
from harness.errors import Faults
from harness.execution.verification import Verdict, verified
from harness.planning.request import Machine, Places, Request, Rows, option
from harness.planning.run_context import cores, find_weight_files, machine_faults, run_context
from harness.planning.session import load_plugins_of
from harness.reporting.bundles import Bundle, read_bundle
from harness.reporting.consistency import Known, not_told
from harness.reporting.verdicts import DIFFERENT, INCONSISTENT, Verdicts
from harness.suites.locations import find_locations
from methods.registry import plugin_files


@dataclass(frozen=True)
class VerifyOptions:
    """What is made again."""

    panel: ClassVar[str] = "What to make again"
    trials: int = option(3, "--trials", help="How many trials, drawn by chance.", low=0, metavar="K")
    seed: int = option(0, "--seed", help="Seed of the draw.", low=0, metavar="N")


@with_options(
    VerifyOptions, Rows, Places, Machine,
    only=("trials", "seed", "plugins", "data", "weights", "config", "device", "cpus_per_trial", "batch_size"),
    helps={"plugins": "A Python file with a method or an engine that the bundle uses."},
)  # fmt: skip
def verify(
    options: VerifyOptions,
    rows: Rows,
    places: Places,
    machine: Machine,
    bundle: str = typer.Argument(help="The bundle to verify.", metavar="BUNDLE"),
) -> None:
    """Check a bundle's records, and make some of its trials again; status 1 where something is wrong."""
    console, found = output_console(), read_bundle(Path(bundle))
    known = _known(found, rows, places, machine)
    verdicts: list[Verdict] = []
    for verdict in verified(found, known, options.trials, options.seed, console):
        verdicts.append(verdict)
        why = f" ({verdict.why})" if verdict.why else ""
        console.print(f"{verdict.record.label}: {verdict.verdict}{why}", markup=False, soft_wrap=True)
    for suite in found.suites:
        if said := not_told(suite):
            console.print(said, markup=False, soft_wrap=True)
    Verdicts({one.record.trial: one.verdict for one in verdicts}).keep(found)
    counts = Counter(verdict.verdict for verdict in verdicts)
    counts["consistent, not made again"] = len({r.trial for r in found.records}) - counts.total()
    total = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    console.print(f"{total}. Costs, environments and dates cannot be verified.", soft_wrap=True)
    if counts[INCONSISTENT] or counts[DIFFERENT]:
        raise typer.Exit(1)


def _known(bundle: Bundle, rows: Rows, places: Places, machine: Machine) -> Known:
    """Weights and data that are here, without asking a hub; raises UsageError with every fault."""
    faults = Faults(machine_faults(machine))
    with faults.gathered():
        load_plugins_of(Request(rows, places, machine))
    with faults.gathered():
        locations = find_locations(places.data, places.weights, config=places.config)
    faults.raise_any()
    backbones = dict.fromkeys(record.backbone for record in bundle.records)
    weights = find_weight_files(backbones, locations, download=False)
    context = run_context(machine, locations, weights, plugin_files())
    if machine.cpus_per_trial is None:
        context = dataclasses.replace(context, threads=cores())
    return Known(context, {name: sha256_of_weights(name, path) for name, path in weights.found.items()})
