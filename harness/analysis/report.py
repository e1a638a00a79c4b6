"""An analysis in every format it is shown in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.analysis.analysing import REAL, Analysis, image_row
from harness.analysis.measuring import WHOLE, Dependence, ImageFacts, StudentFacts
from harness.analysis.tables import Table, footnotes, tables
from results.tables import Column, FittedTable

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "md", "csv", "json")
_NAME_WIDTH = 16
"""Characters to which the name of a set folds before columns leave."""
_ELSEWHERE = "A wider terminal shows them, and so does every other format."


def rows_of(analysis: Analysis) -> list[dict[str, Any]]:
    """A row per set and per kind of images its student was measured on, as plain values."""
    return [
        {**image_row(analysis, name), "measured_on": kind, **_measured_row(analysis.images[on], facts[name])}
        for name in analysis.images
        for kind, on, facts in (("own images", name, analysis.own), ("real images", REAL, analysis.real))
        if (name, kind) != (REAL, "own images")
    ]


def _measured_row(images: ImageFacts, student: StudentFacts) -> dict[str, Any]:
    """What teacher and student make of the same images."""
    return {
        "class_entropy": images.entropy,
        **_dependence_row("teacher_", images.dependence),
        "attention_distance": student.mean_distance,
        **_dependence_row("", student.dependence),
    }


def _dependence_row(prefix: str, dependence: Dependence) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for view, found in dependence.answers.items():
        name = "all" if view == WHOLE else f"{view.patches}_{100 * view.kept:.0f}_percent"
        row |= {
            f"{prefix}agreement_{name}": found.agreement_percent,
            f"{prefix}kl_{name}": found.kl,
            f"{prefix}information_{name}": found.information,
        }
    for margin in dependence.margins:
        name = f"{prefix}margin_over_{margin.over}_{100 * margin.kept:.0f}_percent"
        row |= {name: margin.points, f"{name}_interval": margin.interval}
    return row


def render(analysis: Analysis, format: str, console: Console) -> str:
    """The analysis in one of `FORMATS`; `console` decides the width of `table`."""
    writers: dict[str, Callable[[], str]] = {
        "table": lambda: _terminal(analysis, console),
        "md": lambda: _markdown(analysis),
        "csv": lambda: _csv(analysis),
        "json": lambda: _json(analysis),
    }
    return writers[format]()


def _terminal(analysis: Analysis, console: Console) -> str:
    from rich.text import Text

    with console.capture() as captured:
        for content in tables(analysis):
            console.print(_fitted(content))
        for note in footnotes(analysis):
            console.print(Text(note, style="dim"))
    return captured.get()


def _fitted(content: Table) -> FittedTable:
    """The table for a terminal; where there is no room the last columns leave first."""
    first, *numbers = content.header
    columns = [Column(first, least=_NAME_WIDTH)]
    columns += [Column(name, number=True, leaves=place) for place, name in enumerate(numbers)]
    table = FittedTable(columns, content.title, _ELSEWHERE)
    for line in content.lines:
        table.add(*line)
    return table


def _markdown(analysis: Analysis) -> str:
    parts = []
    for table in tables(analysis):
        ruler = ("---" if index == 0 else "---:" for index in range(len(table.header)))
        rows = [table.header, tuple(ruler), *table.lines]
        parts.append(f"### {table.title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in rows))
    parts.append("\n".join(f"- {note}" for note in footnotes(analysis)))
    return "\n\n".join(parts) + "\n"


def _csv(analysis: Analysis) -> str:
    import pandas as pd

    frame = pd.DataFrame([{**analysis.settings, **row} for row in rows_of(analysis)])
    text: str = frame.to_csv(index=False)
    return text


def _json(analysis: Analysis) -> str:
    content = {
        "settings": dict(analysis.settings),
        "rows": rows_of(analysis),
        "curves": {name: facts.curve for name, facts in analysis.images.items()},
        "mass_of_top_tenth_by_layer_and_head": {n: facts.heads for n, facts in analysis.images.items()},
        "mass_of_top_tenth_uniform": analysis.evenly,
        "range_ratios": {name: analysis.range_ratios(name) for name in analysis.images},
        "gradient_shares": {n: dataclasses.asdict(found) for n, found in analysis.gradient_shares.items()},
        "warnings": analysis.warnings,
        "failures": analysis.failures,
    }
    return json.dumps(content, indent=2) + "\n"
