"""What a reader of the terminal sees of a search's end, in 80 columns."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from harness.cli.tuning_report import print_tuned
from harness.tuning.selection import Selection
from harness.tuning.space import Dimension, Space
from harness.tuning.tune import Tuned
from results.statistics import Spread

SPACE = Space(
    "m", "e", (Dimension("m", "x", 0.5, low=0.0, high=1.0), Dimension("e", "rate", 0.1, low=0.0, high=1.0))
)


def said(**changes) -> str:
    facts = {"trials": 24, "objective": "agreement"}
    found = Tuned(
        SPACE, "s", Path("studies/s"), {"m.x": 0.25, "e.rate": 0.1}, facts, values=(90.0,), **changes
    )
    console = Console(file=io.StringIO(), width=80)
    print_tuned(found, console)
    return console.file.getvalue()


def test_shares_come_with_their_spread_also_where_a_setting_has_none():
    shown = said(shares={"m.x": Spread(0.75, 0.1)}, least_for_shares=20)
    (row,) = [line for line in shown.splitlines() if line.strip().startswith("m.x")]
    assert row.split() == ["m.x", "0.5", "0.25", "0.75", "±", "0.10"]
    assert "PED-ANOVA" in shown


def test_without_enough_tries_there_is_no_column_and_a_line_says_when_there_will_be():
    shown = said(least_for_shares=30)
    (row,) = [line for line in shown.splitlines() if line.strip().startswith("m.x")]
    assert row.split() == ["m.x", "0.5", "0.25"]
    assert "importance: told from 30 finished tries on" in shown


def test_the_luck_of_the_search_is_told():
    lucky = Selection(chosen=7, searched=95.0, again={0: (90.0,), 7: (91.0, 92.0)})
    assert (
        "try 7 scored agreement 95.00 while searching and 91.50 on further seeds (2 scorings): "
        "the search was too hopeful by 3.50"
    ) in " ".join(said(selection=lucky).split())
    modest = Selection(chosen=7, searched=91.0, again={0: (90.0,), 7: (91.0, 92.0)})
    assert "too cautious by 0.50" in " ".join(said(selection=modest).split())
