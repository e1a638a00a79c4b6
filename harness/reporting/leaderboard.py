"""A leaderboard of records with the published numbers that belong to its methods, engines and backbones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from backbones import SPECS
from harness.planning.stage_builder import plain
from methods.base import Method
from methods.registry import get_engine, get_method, method_names
from methods.settings import configure
from results.leaderboard import leaderboard
from results.published import PublishedNames
from results.record import Record

if TYPE_CHECKING:
    import pandas as pd


def board_of(records: Iterable[Record], *, published: bool = True) -> pd.DataFrame:
    """The `results.leaderboard` frame of the records; without `published` those columns stay empty."""
    if not published:
        return leaderboard(records)
    backbones = {name: spec.published_name for name, spec in SPECS.items() if spec.published_name}
    methods = _published_methods()
    settings = {pair: _published_settings(get_method(pair[0]), pair[1]) for pair in methods}
    return leaderboard(records, published=PublishedNames(methods, backbones, settings))


def _published_methods() -> dict[tuple[str, str], str]:
    """(method, engine) -> the method's name in papers, for every registered method."""
    names = {}
    for method in map(get_method, method_names()):
        if method.published_name is not None:
            names[(method.name, method.engine or "none")] = method.published_name
        names |= {(method.name, engine): name for engine, name in method.published_elsewhere.items()}
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
