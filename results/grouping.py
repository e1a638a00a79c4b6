"""Which records make one row of a leaderboard: the same work under the same protocol, over its seeds.

Knows nothing about tables, ranks or published numbers.
"""

from __future__ import annotations

import functools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from results.record import Record
from results.statistics import Spread, spread

DEFAULTS = "paper defaults"
"""Label of the row beside a tuned one."""


@dataclass(frozen=True)
class Row:
    """Records that differ in nothing but the seed; at least one, ordered by seed."""

    records: tuple[Record, ...]
    variant: str = ""
    """What tells this row from others of the same name: `iterations=200`, `tuned`; empty if none is."""

    @functools.cached_property
    def ok(self) -> tuple[Record, ...]:
        """The seeds that have a result."""
        return tuple(record for record in self.records if record.status == "ok")

    @functools.cached_property
    def first(self) -> Record:
        """A record that speaks for the row: one with a result where there is one."""
        return (self.ok or self.records)[0]

    @property
    def is_full_precision(self) -> bool:
        """The row of the unquantized teacher."""
        return self.first.bits == "fp32"

    @property
    def is_reference(self) -> bool:
        """Rows to compare with, which are not data-free quantization: shown, never ranked."""
        return self.is_full_precision or self.first.data_use == "real images"

    @property
    def status(self) -> str:
        """`ok`, `partial` (some seeds have no result), or why none has."""
        if len(self.ok) == len(self.records):
            return "ok"
        kinds = {record.status for record in self.records}
        return "partial" if self.ok else kinds.pop() if len(kinds) == 1 else "failed"

    @property
    def reason(self) -> str:
        """Why seeds are missing, each reason once."""
        reasons = list(dict.fromkeys(r.reason or r.status for r in self.records if r.status != "ok"))
        count = f"{len(self.ok)} of {len(self.records)} seeds: " if self.status == "partial" else ""
        return count + "; ".join(reasons) if reasons else ""

    def score(self) -> Spread | None:
        """Mean and deviation of the ranking metric; None without a finite result for every counted seed."""
        return self._score

    @functools.cached_property
    def _score(self) -> Spread | None:
        values = [record.metrics.get(record.metric, math.nan) for record in self.ok]
        return spread(values) if values and all(map(math.isfinite, values)) else None

    def mean_of(self, kind: str, name: str) -> float | None:
        """Mean over the seeds that have `metrics` or `cost` (the `kind`) of that name."""
        values = [getattr(record, kind)[name] for record in self.ok if name in getattr(record, kind)]
        return math.fsum(values) / len(values) if values else None


def gathered(records: Iterable[Record]) -> list[Row]:
    """Records as rows. Settings variants, protocols, weights and samples are never averaged together.

    Of two records for one seed the later finished one counts. A record without a result knows of protocol,
    weights and samples only a part; it joins a row of its settings, if there is one that lacks its seed.
    """
    by_settings: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        settings = json.dumps([record.settings, record.tuning], sort_keys=True)
        by_settings[(*_name(record), settings)].append(record)
    rows = [row for group in by_settings.values() for row in _split_by_conditions(group)]
    namesakes: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        namesakes[_name(row.first)].append(row)
    return [Row(row.records, label) for same in namesakes.values() for row, label in _labelled(same)]


def _name(record: Record) -> tuple[str, ...]:
    return (
        record.method,
        record.synthesizer,
        record.engine,
        record.backbone,
        record.bits,
        record.task,
        record.track,
        record.budget,
    )


def _conditions(record: Record) -> dict[str, str]:
    """What a result was measured under; empty texts where a failed trial never came so far."""
    return {
        "protocol": record.fingerprint if record.protocol else "",
        "weights": record.weights_sha256[:8],
        "samples": record.samples_digest[:8],
    }


def _split_by_conditions(records: list[Record]) -> list[Row]:
    groups: dict[tuple[str, ...], dict[int, Record]] = {}
    # Results first, so that failures find the rows they belong to.
    for record in sorted(records, key=lambda r: (r.status != "ok", r.finished_at)):
        conditions = tuple(_conditions(record).values())
        if record.status != "ok":
            fitting = [place for place, seeds in groups.items() if _fits(record, next(iter(seeds.values())))]
            conditions = min(fitting, key=lambda place: record.seed in groups[place], default=conditions)
        seeds = groups.setdefault(conditions, {})
        older = seeds.get(record.seed)
        if older is None or older.finished_at <= record.finished_at:
            seeds[record.seed] = record
    return [Row(tuple(seeds[seed] for seed in sorted(seeds))) for seeds in groups.values()]


def _fits(failed: Record, other: Record) -> bool:
    """Whether all that is known of a trial without a result agrees with another one."""
    known = _conditions(failed) | {"protocol": ""}
    theirs = _conditions(other)
    protocol = all(other.protocol.get(name) == value for name, value in failed.protocol.items())
    return protocol and all(value in ("", theirs[name]) for name, value in known.items())


def _labelled(rows: list[Row]) -> list[tuple[Row, str]]:
    """Each row of one name with the facts in which it differs from the first; the first is `base`.

    A row whose settings a search found says so instead, and the one beside it has the defaults.
    """
    tuned = [(row, _tuned_label(row.first)) for row in rows if row.first.tuning]
    others = [row for row in rows if not row.first.tuning]
    if tuned and len(others) == 1:
        return [(others[0], DEFAULTS), *tuned]
    return [*_labelled_by_facts(others), *tuned]


def _tuned_label(record: Record) -> str:
    return f"{'equally ' if record.tuning.get('equally') else ''}tuned, {record.tuning.get('trials')} trials"


def _labelled_by_facts(rows: list[Row]) -> list[tuple[Row, str]]:
    if not rows:
        return []
    if len(rows) == 1:
        return [(rows[0], "")]
    facts = [_flat(row.first) for row in rows]
    names = dict.fromkeys(name for row_facts in facts for name in row_facts)
    differing = [name for name in names if len({json.dumps(f.get(name), sort_keys=True) for f in facts}) > 1]
    short = [name.rpartition(".")[2] for name in differing]
    shown = {n: s if short.count(s) == 1 else n for n, s in zip(differing, short, strict=True)}

    def label(own: Mapping[str, Any]) -> str:
        changed = [name for name in shown if own.get(name) != facts[0].get(name)]
        return ", ".join(f"{shown[name]}={own.get(name, 'none')}" for name in changed)

    return [(row, label(own) or "base") for row, own in zip(rows, facts, strict=True)]


def _flat(record: Record) -> dict[str, Any]:
    settings = {f"{part}.{name}": v for part, values in record.settings.items() for name, v in values.items()}
    return {**settings, **_conditions(record)}
