"""A leaderboard of records with the published numbers that belong to its methods, engines and backbones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from backbones import SPECS
from methods.registry import get_method, method_names
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
    return leaderboard(records, published=PublishedNames(_published_methods(), backbones))


def _published_methods() -> dict[tuple[str, str], str]:
    """(method, engine) -> the method's name in papers, for every registered method."""
    names = {}
    for method in map(get_method, method_names()):
        if method.published_name is not None:
            names[(method.name, method.engine or "none")] = method.published_name
        names |= {(method.name, engine): name for engine, name in method.published_elsewhere.items()}
    return names
