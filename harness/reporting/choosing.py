"""Which records of a suite a reader asked for: the options that narrow a run narrow its table too."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backbones.names import shown, suggestion
from harness.errors import Faults
from harness.planning.request import Rows
from harness.stages.precision import EXACT
from harness.suites.loading import read_tuned
from harness.suites.suite import ANCHORS, Overrides
from methods.bits import Bits
from results.record import Record

Fits = Callable[[Record], bool]


def chosen(records: Sequence[Record], rows: Rows) -> list[Record]:
    """The records that fit every option of `rows`; anchors stay, whatever methods are chosen.

    Raises UsageError with a sentence for each value that no record has.
    """
    faults = Faults()
    tests: list[Fits] = [
        _named("methods", [*rows.methods, *ANCHORS] if rows.methods else (), records, faults, "method"),
        _named("backbones", rows.backbones, records, faults, "backbone"),
        _named("bits", [_bits(word) for word in rows.bits], records, faults, "bits"),
        _named("seeds", rows.seeds, records, faults, "seed"),
        _named("engines", rows.engines, records, faults, "engine"),
        _named("budget", [rows.budget] if rows.budget else (), records, faults, "budget"),
        _in_protocol("scope", rows.scope, "whole", records, faults),
        _in_protocol("precision", rows.precision, EXACT, records, faults),
    ]
    if rows.oracle:
        tests.append(_has_oracle)
    for text in rows.assignments:
        path, _, value = text.partition("=")
        *places, field = path.strip().split(".")
        if not places or not value:
            faults.append(f"--set {shown(text)}: write method.field=value or engine.field=value")
            continue
        tests.append(_set_to(places, field, value.strip(), f"--set {shown(text)}", records, faults))
    for file in rows.set_files:
        tuned = read_tuned(file)
        faults += tuned.faults
        tests.append(_tuned_as(tuned.overrides))
    faults.raise_any()
    return [record for record in records if all(test(record) for test in tests)]


def _bits(word: str) -> str:
    try:
        return str(Bits.parse(word))
    except ValueError:
        return word


def _named(option: str, words: Sequence[str], records: Sequence[Record], faults: Faults, field: str) -> Fits:
    """Fits records with one of the words in a field; full precision has neither engine, bits nor seeds."""
    if not words:
        return lambda record: True
    there = sorted({str(getattr(record, field)) for record in records})
    faults += [
        f"--{option} {shown(word)}: no record has it{suggestion(word, there)}"
        for word in words
        if word not in there and not (option == "methods" and word in ANCHORS)
    ]
    return lambda record: (
        str(getattr(record, field)) in words
        or (record.bits == "fp32" and option in ("bits", "seeds", "engines"))
    )


def _in_protocol(
    name: str, wanted: str | None, default: str, records: Sequence[Record], faults: Faults
) -> Fits:
    """Fits records that say so in their protocol, or of their engine in it; full precision has no scope."""
    if wanted is None:
        return lambda record: True

    def fits(record: Record) -> bool:
        engine = record.protocol.get("engine", {})
        own = record.protocol.get(name, engine.get(name) if isinstance(engine, Mapping) else None)
        return (own or default) == wanted or (name == "scope" and record.bits == "fp32")

    if not any(map(fits, records)):
        faults.append(f"--{name} {shown(wanted)}: no record has it")
    return fits


def _has_oracle(record: Record) -> bool:
    trains = any(name.startswith("oracle_") for name in record.metrics)
    return trains or record.status != "ok" or record.engine == "none"


def _set_to(
    places: Sequence[str], field: str, value: str, option: str, records: Sequence[Record], faults: Faults
) -> Fits:
    """Fits records of other methods and engines, and of those named the ones with this setting."""
    part = "synthesizer" if len(places) == 1 and places[0] in {r.method for r in records} else "engine"
    where = ("method",) if part == "synthesizer" else ("method", "engine")[-len(places) :]

    def is_meant(record: Record) -> bool:
        return all(getattr(record, name) == place for name, place in zip(where, places, strict=True))

    def fits(record: Record) -> bool:
        return not is_meant(record) or _same(record.settings.get(part, {}).get(field), value)

    if not any(is_meant(record) and fits(record) for record in records):
        faults.append(f"{option}: no record has it")
    return fits


def _tuned_as(overrides: Overrides) -> Fits:
    """Fits records of other methods, and of those in a tuned file the ones with its settings."""

    def fits(record: Record) -> bool:
        fields = overrides.get(record.method)
        if fields is None:
            return True
        return all(_has(record, name, value) for name, value in fields.items())

    return fits


def _has(record: Record, name: str, value: Any) -> bool:
    """Whether a record has a setting, or those of its engine where the value maps them."""
    if isinstance(value, Mapping):
        own = record.settings.get("engine", {})
        return name != record.engine or all(_same(own.get(key), each) for key, each in value.items())
    return _same(record.settings.get("synthesizer", {}).get(name), value)


def _same(own: Any, given: Any) -> bool:
    """Whether a setting is the given value, which may be typed."""
    if own == given or str(own) == str(given):
        return True
    try:
        return bool(own == json.loads(given))
    except (TypeError, ValueError):
        return False
