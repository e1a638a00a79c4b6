"""What `harness tune` prints: the best settings of each method, the final comparison, where both are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.execution.run import RunOutcome
from harness.planning.session import Session
from harness.reporting.leaderboard import board_of
from harness.tuning.tune import Tuned
from harness.tuning.verdict import Verdict
from results.figures import fixed, setting
from results.renderers import render
from results.tables import Column, FittedTable

if TYPE_CHECKING:
    from rich.console import Console


def print_tuned(tuned: Tuned, console: Console) -> None:
    """Show what the search of one method found: settings before and after it, and the Pareto front."""
    count = f"{tuned.facts['trials']} trials" + (
        f", {tuned.trials_before} of them from before" if tuned.trials_before else ""
    )
    if tuned.best is None:
        console.print(
            f"{tuned.study}: no trial of {count} finished; {tuned.folder / 'trials.csv'} tells why",
            markup=False,
            soft_wrap=True,
        )
        return
    objectives = tuned.facts["objective"].split(", ")
    said = _valued(objectives, tuned.values)
    before = (
        f"; before the search {_valued(objectives, tuned.default_values)}" if tuned.default_values else ""
    )
    columns = [Column("setting", least=20), Column("before", number=True), Column("best", number=True)]
    if tuned.shares:
        columns.append(Column("importance", number=True, leaves=1))
    table = FittedTable(columns, f"{tuned.study}: best of {count}, {said}{before}")
    for dimension in tuned.space.dimensions:
        share = tuned.shares.get(dimension.name)
        best = tuned.best.get(dimension.name, dimension.default)
        cells = [dimension.name, setting(dimension.default), setting(best)]
        if tuned.shares:
            cells.append("" if share is None else f"{fixed(share.mean, 2)} ± {fixed(share.std, 2)}")
        table.add(*cells)
    console.print(table)
    lines = [
        _about_importance(tuned),
        *_optimism(tuned, objectives[0]),
        *(f"Pareto front: try {p['number']}, {_valued(objectives, p['values'])}" for p in tuned.front),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _about_importance(tuned: Tuned) -> str:
    if tuned.shares:
        return (
            "importance: share in the spread of the first objective (PED-ANOVA), ± its deviation over "
            "resamples of the tries"
        )
    return f"importance: told from {tuned.least_for_shares} finished tries on"


def _optimism(tuned: Tuned, objective: str) -> list[str]:
    """How the chosen settings fared when they were scored again; the luck of the best of many tries."""
    if tuned.selection is None:
        return []
    selection = tuned.selection
    scorings = len(selection.again[selection.chosen])
    return [
        f"try {selection.chosen} scored {objective} {fixed(selection.searched, 2)} while searching and "
        f"{fixed(selection.mean, 2)} on further seeds ({scorings} scorings): the search was "
        f"{_direction(selection.optimism)}"
    ]


def _direction(optimism: float) -> str:
    amount = fixed(abs(optimism), 2)
    return f"too hopeful by {amount}" if optimism >= 0 else f"too cautious by {amount}"


def print_board(outcome: RunOutcome, console: Console) -> None:
    """Show the final comparison as a leaderboard."""
    print(render(board_of(outcome.records), "table", console=console))
    for note in outcome.notes:
        console.print(f"note: {note}", markup=False)


def print_closing(
    session: Session,
    path: Path,
    found: list[Tuned],
    said: Mapping[str, Verdict],
    uri: str,
    console: Console,
) -> None:
    """Say what was compared, on what, how it ended, and where settings and comparison are kept."""
    seeds = ", ".join(map(str, session.suite.seeds))
    lines = [
        f"Compared on the report split with seeds {seeds}; the search scored its tries on "
        f"{found[0].facts['split']} and other seeds.",
        *(f"{method}: {verdict.sentence}" for method, verdict in said.items()),
        *(
            f"Settings found for {t.space.method}: {t.folder / 'best.yaml'}"
            for t in found
            if t.best is not None
        ),
        f"The comparison as a suite: {path} (MLflow: {uri})",
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _valued(objectives: list[str], values: tuple[float, ...]) -> str:
    return ", ".join(f"{name} {fixed(value, 2)}" for name, value in zip(objectives, values, strict=True))
