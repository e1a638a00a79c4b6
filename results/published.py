"""Numbers that papers and their repositories report, each with its source; never mixed with measured ones.

Reads `published/published.csv`, and tells whether a record was made with the settings of the papers.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results.metrics import metric_of
from results.record import Record

_FILE = Path(__file__).parent / "published" / "published.csv"
_TASKS = {"imagenet": ("classification", "ImageNet-1k"), "coco": ("detection", "COCO val2017")}
"""Task of the harness -> task and data set as the papers name them."""
_FULL_PRECISION = "FP baseline"
_WIDEST_TABLE = "MaskAQ paper Table 1"
"""Covers most methods on most backbones, so it is used where a method's own paper has no such row."""


@dataclass(frozen=True)
class PublishedNumber:
    """One reported number."""

    method: str
    backbone: str
    bits: str
    """`w4a4`, `fp32`; other texts, such as `w4.9a6.2`, for mixed precision."""
    task: str
    dataset: str
    metric: str
    value: float
    """The number in the metric's unit: percent for top1 and average precisions."""
    source: str
    note: str


@dataclass(frozen=True)
class PublishedNames:
    """How this project's names read in papers' tables."""

    methods: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(method, engine) -> name of the method in papers: a number belongs to the engine it was made with."""
    backbones: Mapping[str, str] = field(default_factory=dict)
    """Backbone -> its name in papers."""
    settings: Mapping[tuple[str, str], Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """(method, engine) -> part -> every hyper-parameter of the published rows, as records hold them; rows of
    a pair without an entry are taken to have them."""

    def departure(self, record: Record) -> str:
        """In what a record is not the paper's: its budget, or the settings that differ; empty in nothing."""
        paper = self.settings.get((record.method, record.engine), {})
        if paper and record.budget != "paper":
            return f"budget {record.budget}"
        changed = [
            f"{name}={record.settings.get(part, {}).get(name)}"
            for part, fields in paper.items()
            for name, value in fields.items()
            if record.settings.get(part, {}).get(name) != value
        ]
        return ", ".join(changed)


def published_values(
    method: str, backbone: str, bits: str, task: str, metric: str = "top1"
) -> tuple[PublishedNumber, ...]:
    """Every reported number of a method (papers' name) on a backbone (papers' name), the best source first.

    The method's own paper or repository comes first, then the widest comparison table, then re-runs by
    others; numbers quoted at second hand come last. At `fp32` the full-precision rows are meant, whatever the
    method's name. Empty where nothing was published, or for a task no paper uses.
    """
    papers_task = _TASKS.get(task, ("", ""))
    found = [
        number
        for number in _by_cell().get((papers_task, backbone, bits), ())
        if number.metric in metric_of(metric).papers_names
        and (number.method.startswith(_FULL_PRECISION) if bits == "fp32" else number.method == method)
    ]
    return tuple(sorted(found, key=_distance_from_authors))


@functools.cache
def published_numbers() -> tuple[PublishedNumber, ...]:
    """The whole file; raises ValueError that names the line of a malformed row."""
    with _FILE.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        return tuple(_read(row, reader.line_num) for row in reader)


@functools.cache
def _by_cell() -> Mapping[tuple[tuple[str, str], str, str], list[PublishedNumber]]:
    """(task and data set, backbone, bits) -> the numbers of that cell, in the order of the file."""
    cells: dict[tuple[tuple[str, str], str, str], list[PublishedNumber]] = {}
    for number in published_numbers():
        place = ((number.task, number.dataset), number.backbone, number.bits)
        cells.setdefault(place, []).append(number)
    return cells


def _read(row: Mapping[str, str], line: int) -> PublishedNumber:
    weights, activations = row["weight_bits"], row["act_bits"]
    try:
        value = float(row["value"])
    except ValueError:
        raise ValueError(f"{_FILE.name}:{line}: '{row['value']}' is not a number") from None
    return PublishedNumber(
        method=row["method"],
        backbone=row["backbone"],
        bits="fp32" if weights == activations == "32" else f"w{weights}a{activations}",
        task=row["task"],
        dataset=row["dataset"],
        metric=row["metric"],
        value=value,
        source=row["source"],
        note=row["note"],
    )


def _distance_from_authors(number: PublishedNumber) -> tuple[bool, bool, bool]:
    """Sorts sources; False comes first."""
    own = number.source.startswith(number.method.split()[0])
    return ("SECONDARY" in number.note, not own, not number.source.startswith(_WIDEST_TABLE))
