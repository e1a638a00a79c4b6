"""A leaderboard of records with the published numbers that belong to its methods, engines and backbones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from backbones import SPECS
from harness.planning.stage_builder import plain
from methods.base import Method
from methods.registry import get_engine, get_method, method_names
from methods.settings import configure
from results.leaderboard import Board, leaderboard
from results.published import PublishedNames
from results.record import Record


def board_of(
    records: Iterable[Record],
    *,
    published: bool = True,
    remarks: Sequence[str] = (),
    sound: Collection[str] | None = None,
) -> Board:
    """The leaderboard of the records; without `published` those columns stay empty.

    `remarks` and `sound` are those of `results.leaderboard`.
    """
    if not published:
        return leaderboard(records, remarks=remarks, sound=sound)
    records = list(records)
    return leaderboard(records, published=published_names(records), remarks=remarks, sound=sound)


def published_names(records: Iterable[Record]) -> PublishedNames:
    """How the methods, engines and backbones of the records read in papers' tables.

    Each method stands there with its own engine too, whatever engine the records have.
    """
    backbones = {name: spec.published_name for name, spec in SPECS.items() if spec.published_name}
    pairs = {(record.method, record.engine) for record in records}
    known = {name for name, _ in pairs}.intersection(method_names())
    methods = _published_methods(pairs | {(name, get_method(name).engine or "none") for name in known})
    settings = {pair: _published_settings(get_method(pair[0]), pair[1]) for pair in methods}
    return PublishedNames(methods, backbones, settings)


def _published_methods(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(method, engine) -> the method's name in papers, for those of the pairs that papers have numbers of."""
    names = {}
    for name, engine in pairs:
        if name not in method_names():
            continue
        method = get_method(name)
        own = method.published_name if engine == (method.engine or "none") else None
        if published := method.published_elsewhere.get(engine, own):
            names[name, engine] = published
    return names


def _published_settings(method: Method, engine: str) -> dict[str, Mapping[str, Any]]:
    """Every hyper-parameter of the published rows, by part as in records; empty for full precision."""
    if method.synthesizer is None:
        return {}
    made = configure(method.synthesizer.Config, "paper", method.published_settings)
    preset = method.engine_settings(made) if method.engine_settings and engine == method.engine else {}
    quantizer = get_engine(engine)
    fields = {**preset, **quantizer.published_settings}
    return {"synthesizer": plain(made), "engine": plain(configure(quantizer.Config, "paper", fields))}
