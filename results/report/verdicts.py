"""Measured beside published, cell by cell: reproduced, better, worse, or not comparable and in what.

A published number that was quoted at second hand is shown and judged by nobody. Published numbers never rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from results.grouping import Row
from results.metrics import metric_of
from results.published import PublishedNames, PublishedNumber, published_values
from results.record import Record
from results.statistics import Interval

Judgement = Literal["reproduced", "better", "worse", "not comparable", "second hand", "nothing published"]

_WHOLE = {"imagenet": 50_000, "coco": 5_000}
"""Task -> images of the set that papers report on."""
_NARROWEST = 0.1
"""Points on each side that a published number may lie off: tables are rounded."""


@dataclass(frozen=True)
class Verdict:
    """What a measured mean says about a published number."""

    judgement: Judgement
    published: float | None = None
    source: str = ""
    note: str = ""
    difference: float | None = None
    """Measured minus published, in points."""
    differs: tuple[str, ...] = ()
    """Why the two cannot be compared, each with what it is here: `budget fast`."""

    @property
    def text(self) -> str:
        """`reproduced`, or `not comparable: budget fast, engine repq_ptq (paper: lsq_qat)`."""
        return f"{self.judgement}: {', '.join(self.differs)}" if self.differs else self.judgement


def verdict_of(
    row: Row, names: PublishedNames, interval: Interval | None, full_precision: float | None
) -> Verdict:
    """The verdict on a row; `interval` is that of its mean in points, `full_precision` that of its weights.

    Reproduced means that the published number lies within our 95 % interval, or 0.1 points of the mean.
    """
    one, score = row.first, row.score()
    nearest = _nearest(one, names)
    if nearest is None:
        return Verdict("nothing published")
    engine, number = nearest
    difference = None if score is None else score.mean - number.value
    differs = tuple(_differences(one, names, engine, full_precision, number))
    if _is_second_hand(number):
        return Verdict("second hand", number.value, number.source, number.note, difference, differs)
    if differs or score is None or difference is None:
        return Verdict("not comparable", number.value, number.source, number.note, difference, differs)
    low = min(score.mean - _NARROWEST, interval.low if interval else score.mean)
    high = max(score.mean + _NARROWEST, interval.high if interval else score.mean)
    if low <= number.value <= high:
        return Verdict("reproduced", number.value, number.source, number.note, difference)
    judged: Judgement = "better" if difference > 0 else "worse"
    return Verdict(judged, number.value, number.source, number.note, difference)


def _nearest(record: Record, names: PublishedNames) -> tuple[str, PublishedNumber] | None:
    """The published number that comes nearest, and its engine: the record's own, then one at first hand."""
    engines = sorted(engine for method, engine in names.methods if method == record.method)
    found = [(engine, numbers[0]) for engine in engines if (numbers := _numbers(record, names, engine))]
    ordered = sorted(found, key=lambda one: (one[0] != record.engine, _is_second_hand(one[1])))
    return ordered[0] if ordered else None


def _is_second_hand(number: PublishedNumber) -> bool:
    return "SECONDARY" in number.note


def _numbers(record: Record, names: PublishedNames, engine: str) -> tuple[PublishedNumber, ...]:
    return published_values(
        names.methods.get((record.method, engine), ""),
        names.backbones.get(record.backbone, ""),
        record.bits,
        record.task,
        record.metric,
    )


def _differences(
    record: Record,
    names: PublishedNames,
    engine: str,
    full_precision: float | None,
    number: PublishedNumber,
) -> Iterator[str]:
    whole = _WHOLE.get(record.task, 0)
    if engine != record.engine:
        yield f"engine {record.engine} (paper: {engine})"
    if names.settings.get((record.method, engine)) and record.budget != "paper":
        yield f"budget {record.budget}"
    elif engine == record.engine and (changed := names.departure(record)):
        fields = changed.split(", ")
        yield (
            f"settings {changed}"
            if len(fields) < 4
            else f"settings {', '.join(fields[:3])} and {len(fields) - 3} more"
        )
    if not record.quantizes_heads_alike:
        yield "scope: heads keep other bits"
    if record.images and record.images != whole:
        yield f"data {record.images:,} of {whole:,} images"
    elif full_precision is not None and (gap := _checkpoint_gap(record, names, full_precision, number)):
        yield gap


def _checkpoint_gap(
    record: Record, names: PublishedNames, full_precision: float, number: PublishedNumber
) -> str:
    """That the paper's full precision is another one; empty where it agrees or is not told by this source."""
    backbone = names.backbones.get(record.backbone, "")
    told = [
        one
        for one in published_values("", backbone, "fp32", record.task, record.metric)
        if one.source == number.source
    ]
    tolerance = metric_of(record.metric).tolerance or 0.0
    if record.bits == "fp32" or not told or abs(told[0].value - full_precision) <= tolerance:
        return ""
    return f"checkpoint: full precision {full_precision:.2f} (paper: {told[0].value:.2f})"
