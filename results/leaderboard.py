"""The leaderboard: one row per method, engine, backbone and bit-width, beside the published numbers.

A measured number comes from records alone, a published one from `results.published` alone, in columns of
their own. Knows nothing about how a table looks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results.grouping import Row, gathered
from results.metrics import kept_metrics
from results.published import PublishedNames, PublishedNumber, published_values
from results.ranking import Standing, standings
from results.record import SEVERAL, Record
from results.statistics import wilson_interval

if TYPE_CHECKING:
    import pandas as pd

_BEFORE_METRICS = {
    "rank": "Int64",
    "method": "str",
    "variant": "str",
    "synthesizer": "str",
    "engine": "str",
    "backbone": "str",
    "bits": "str",
    "task": "str",
    "track": "str",
    "budget": "str",
    "metric": "str",
    "mean": "float64",
    "std": "float64",
    "low": "float64",
    "high": "float64",
    "seeds": "int64",
    "seeds_planned": "int64",
    "images": "int64",
    "published": "float64",
    "published_source": "str",
    "published_note": "str",
    "published_others": "object",
    "published_withheld": "str",
    "drop": "float64",
}
_AFTER_METRICS = {
    "oracle": "float64",
    "synthesis_seconds": "float64",
    "quantization_seconds": "float64",
    "synthetic_images": "float64",
    "peak_memory_mb": "float64",
    "cost_devices": "str",
    "p_vs_best": "float64",
    "p_test": "str",
    "reference": "bool",
    "data_use": "str",
    "status": "str",
    "reason": "str",
    "fingerprint": "str",
    "notes": "object",
}


APART = ", "
"""What joins the devices of different parts of a row's cost."""
_NOTHING_PUBLISHED: dict[str, Any] = {
    "published_source": "",
    "published_note": "",
    "published_others": (),
}


@dataclass(frozen=True)
class Board:
    """A leaderboard: sorted by task, track, budget, backbone and bits, then references, then rank."""

    rows: tuple[Mapping[str, Any], ...]
    """Every column of `columns` by name, None where a value is missing."""
    sources: tuple[Row, ...] = ()
    """The records of each row, in the order of `rows`."""
    remarks: tuple[str, ...] = ()
    """What a reader has to know of how much it shows, a sentence each."""

    def frame(self) -> pd.DataFrame:
        """The rows as a pandas table with the dtypes of `columns`."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(columns())).astype(columns())


def columns() -> dict[str, str]:
    """Column -> dtype of `Board.frame`.

    Accuracies and average precisions, their deviation, interval (95 % Wilson of a rate, for the sampling of
    images) and drop are in percent or percentage points; kl in nats; `published_others` and `notes` hold
    tuples; `published_withheld` says in what a row is not the paper's, whose number is then left out.
    """
    return {**_BEFORE_METRICS, **dict.fromkeys(kept_metrics(), "float64"), **_AFTER_METRICS}


def leaderboard(
    records: Iterable[Record],
    *,
    published: PublishedNames | None = None,
    remarks: Sequence[str] = (),
    sound: Collection[str] | None = None,
) -> Board:
    """The leaderboard of the records.

    `published` says how papers call our methods and backbones; without it the published columns stay empty.
    `remarks` are shown below the table as they are. Where `sound` is given, the keys of trials that somebody
    repeated, each row says under `unverified` whether none of its trials is among them.
    """
    rows = gathered(records)
    places = standings(rows)
    full_precision = full_precision_scores(rows)
    cells = [
        _identity(row)
        | _quality(row, full_precision)
        | _standing(places.get(index))
        | _published(row, published or PublishedNames())
        | cost_of(row)
        | {"unverified": sound is not None and not {record.trial for record in row.ok} & set(sound)}
        for index, row in enumerate(rows)
    ]
    order = sorted(range(len(cells)), key=lambda index: _order(cells[index]))
    kinds = columns()
    kinds |= {} if sound is None else {"unverified": "bool"}
    shown = tuple({name: _cell(cells[i].get(name), kinds[name]) for name in kinds} for i in order)
    return Board(shown, tuple(rows[i] for i in order), tuple(remarks))


def _cell(value: Any, kind: str) -> Any:
    """A value as its column's dtype has it; None for nan too."""
    if value is None or kind != "float64":
        return value
    return None if math.isnan(value) else float(value)


def _identity(row: Row) -> dict[str, Any]:
    one = row.first
    names = (
        "method",
        "synthesizer",
        "engine",
        "backbone",
        "bits",
        "task",
        "track",
        "budget",
        "metric",
        "data_use",
    )
    return {name: getattr(one, name) for name in names} | {
        "variant": row.variant,
        "reference": row.is_reference,
        "seeds": len(row.ok),
        "seeds_planned": len(row.records),
        "images": one.images,
        "status": row.status,
        "reason": row.reason,
        "fingerprint": one.fingerprint if one.protocol else "",
        "notes": tuple(dict.fromkeys(note for record in row.records for note in record.notes)),
    }


def _quality(row: Row, full_precision: dict[tuple[str, ...], float]) -> dict[str, Any]:
    one, score = row.first, row.score()
    measured = {name: row.mean_of("metrics", name) for name in kept_metrics()}
    if score is None:
        return measured
    teacher = full_precision.get(teacher_of(row))
    is_rate = one.metric in one.outcomes and one.images > 0 and 0 <= score.mean <= 100
    interval = wilson_interval(score.mean / 100, one.images) if is_rate else None
    return measured | {
        "mean": score.mean,
        "std": score.std,
        "low": 100 * interval.low if interval else None,
        "high": 100 * interval.high if interval else None,
        "drop": None if teacher is None or row.is_full_precision else teacher - score.mean,
        "oracle": row.mean_of("metrics", f"oracle_{one.metric}"),
    }


def full_precision_scores(rows: Iterable[Row]) -> dict[tuple[str, ...], float]:
    """`teacher_of` -> the score of full precision, where it was measured."""
    return {teacher_of(row): score.mean for row in rows if row.is_full_precision and (score := row.score())}


def teacher_of(row: Row) -> tuple[str, ...]:
    """What full precision and quantized rows must share for a drop to mean anything."""
    one = row.first
    return (one.backbone, one.task, one.metric, one.weights_sha256, one.samples_digest)


def _standing(standing: Standing | None) -> dict[str, Any]:
    if standing is None:
        return {"p_test": ""}
    return {"rank": standing.rank, "p_vs_best": standing.p_value, "p_test": standing.test}


def _published(row: Row, names: PublishedNames) -> dict[str, Any]:
    one = row.first
    method = names.methods.get((one.method, one.engine), "")
    backbone = names.backbones.get(one.backbone, "")
    found = published_values(method, backbone, one.bits, one.task, one.metric)
    if not found or not one.quantizes_heads_alike:
        return {**_NOTHING_PUBLISHED, "published_withheld": ""}
    departure = names.departure(one)
    if departure:
        return {**_NOTHING_PUBLISHED, "published_withheld": departure}
    return {
        "published": found[0].value,
        "published_source": found[0].source,
        "published_note": found[0].note,
        "published_others": tuple(map(_other, found[1:])),
        "published_withheld": "",
    }


def _other(number: PublishedNumber) -> dict[str, Any]:
    return {"value": number.value, "source": number.source, "note": number.note}


def cost_of(row: Row) -> dict[str, Any]:
    """Means over the seeds; of what was taken on several devices there is none.

    `cost_devices` names the device of all costs, or in their order those of synthesis and quantization.
    """
    kinds = ("synthesis_seconds", "quantization_seconds", "peak_memory_mb")
    devices = {
        name: sorted({r.cost_devices[name] for r in row.ok if name in r.cost_devices}) for name in kinds
    }
    means = {name: row.mean_of("cost", name) for name in (*kinds, "synthetic_images")}
    alone = {name: means[name] if len(devices[name]) < 2 else None for name in kinds}
    making = [SEVERAL.join(devices[name]) for name in kinds[:2] if devices[name]]
    return {**means, **alone, "cost_devices": APART.join(dict.fromkeys(making))}


def seconds_from_scratch(cost: Mapping[str, Any]) -> float | None:
    """Synthesis and quantization of one seed from nothing, shared or not, out of what `cost_of` gives.

    None where one of the two is not known, and across devices, whose seconds do not add up.
    """
    parts = [cost[name] for name in ("synthesis_seconds", "quantization_seconds")]
    return None if None in parts or APART in cost["cost_devices"] else sum(parts)


def _order(cells: dict[str, Any]) -> tuple[Any, ...]:
    widths = [-int(width) for width in re.findall(r"[0-9]{1,9}", cells["bits"])]
    unranked = cells.get("rank") is None
    return (
        cells["task"],
        cells["track"],
        cells["budget"],
        cells["backbone"],
        widths,
        not cells["reference"],
        (cells["engine"], cells["fingerprint"]) if cells["track"] == "controlled" else (),
        unranked,
        -cells.get("mean", 0.0) if unranked else cells["rank"],
        cells["engine"],
        cells["method"],
        cells["variant"],
    )
