"""One analysis as rows and tables: what was measured on every set of images and on its student."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.analysis import metrics
from harness.analysis.image_sets import ImageSets
from harness.analysis.measuring import Agreement, ImageFacts, StudentFacts, measure_images, measure_student
from results.figures import MISSING, fixed
from results.tables import Column, FittedTable

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "md", "csv", "json")
_TOP = 0.1
"""Share of the patches whose attention mass is told: MaskAQ's last mask."""
_REAL = "real_data"
_NAME_WIDTH = 16
"""Characters to which the name of a set folds before columns leave."""
_ELSEWHERE = "A wider terminal shows them, and so does every other format."


@dataclass(frozen=True)
class Analysis:
    """Everything that was measured."""

    settings: Mapping[str, Any]
    """backbone, bits, engine, budget, seed, and `measured_images`: how many of each set were looked at."""
    images: Mapping[str, ImageFacts]
    """Set -> what the teacher says of it; `real_data` first."""
    own: Mapping[str, StudentFacts]
    """Set -> what its student makes of the set itself."""
    real: Mapping[str, StudentFacts]
    """Set -> what its student makes of real images."""
    failures: tuple[str, ...] = ()

    def range_ratios(self, name: str) -> dict[str, float]:
        """`metrics.range_ratios` of a set against real images."""
        return metrics.range_ratios(self.images[name].ranges, self.images[_REAL].ranges)


def analyse(image_sets: ImageSets, most_images: int) -> Analysis:
    """Measure every set on equally many images: at most `most_images`, at most what the smallest set has."""
    count = min(most_images, *(len(one.images) for one in image_sets.sets.values()))
    teacher, batch_size = image_sets.teacher, image_sets.batch_size
    real = image_sets.sets[_REAL].images[:count]
    images, own, on_real = {}, {}, {}
    for name, one in image_sets.sets.items():
        first = one.images[:count]
        images[name] = measure_images(teacher, first, batch_size)
        own[name] = measure_student(teacher, one.student, first, batch_size)
        is_real = name == _REAL
        on_real[name] = own[name] if is_real else measure_student(teacher, one.student, real, batch_size)
    settings = {**image_sets.settings, "measured_images": count}
    return Analysis(settings, images, own, on_real, image_sets.failures)


def rows_of(analysis: Analysis) -> list[dict[str, Any]]:
    """A row per set and per kind of images its student was measured on, as plain values."""
    return [
        {**_image_row(analysis, name), "measured_on": kind, **_student_row(facts[name])}
        for name in analysis.images
        for kind, facts in (("own images", analysis.own), ("real images", analysis.real))
        if (name, kind) != (_REAL, "own images")
    ]


def _image_row(analysis: Analysis, name: str) -> dict[str, Any]:
    import torch

    curve = torch.tensor(analysis.images[name].curve)
    ratios = analysis.range_ratios(name)
    point, worst = metrics.worst_ratio(ratios)
    return {
        "images": name,
        "mass_of_top_tenth": metrics.mass_of(curve, _TOP),
        "patches_for_half_the_mass": metrics.patches_for(curve, 0.5),
        "range_ratio_median": statistics.median(ratios.values()),
        "range_ratio_worst": worst,
        "range_ratio_worst_point": point,
    }


def _student_row(facts: StudentFacts) -> dict[str, Any]:
    row: dict[str, Any] = {"attention_distance": facts.mean_distance}
    for part in facts.agreements:
        view = part.patches if part.patches == "all" else f"{part.patches}_{100 * part.kept:.0f}_percent"
        row |= {f"agreement_{view}": part.agreement_percent, f"kl_{view}": part.kl}
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


@dataclass(frozen=True)
class _Table:
    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def _tables(analysis: Analysis) -> Iterator[_Table]:
    where = "{backbone}, {measured_images} images of each set".format(**analysis.settings)
    image_lines = [
        (
            row["images"],
            f"{fixed(100 * row['mass_of_top_tenth'], 1)} %",
            f"{fixed(100 * row['patches_for_half_the_mass'], 1)} %",
            fixed(row["range_ratio_median"], 2),
            f"{fixed(row['range_ratio_worst'], 2)} ({row['range_ratio_worst_point']})",
        )
        for row in (_image_row(analysis, name) for name in analysis.images)
    ]
    header: tuple[str, ...] = (
        "Images",
        "Attention in top 10 %",
        "Patches with half of it",
        "Range / real, median",
        "Worst",
    )
    yield _Table(f"Images on the teacher: {where}", header, tuple(image_lines))
    student = "{bits}, {engine}, budget {budget}, seed {seed}".format(**analysis.settings)
    for kind, facts in (("the images they were made from", analysis.own), ("real images", analysis.real)):
        parts = next(iter(facts.values())).agreements
        header = ("Student of", "Attention distance", *map(_part_header, parts))
        lines = [
            (name, fixed(found.mean_distance, 3), *map(_agreement_cell, found.agreements))
            for name, found in facts.items()
        ]
        yield _Table(f"Students ({student}) on {kind}", header, tuple(lines))


def _footnotes(analysis: Analysis) -> Iterator[str]:
    yield (
        "Attention: share of the CLS-to-patch mass (Swin: of the mass received in windows), mean over heads "
        "and layers, that the strongest tenth of the patches holds; and the share of patches holding half."
    )
    yield "Range / real: width of activation ranges over that on real images, per point of psaq_ptq."
    yield "Attention distance: total variation between the maps of teacher and student, mean over layers."
    yield (
        "Other columns: agreement in percent / KL in nats of the student's answers with the teacher's on the "
        "whole images, when the student sees all patches, only the top (informative, most attention) or only "
        "as many from the bottom (background, least attention), the others being the data set's mean."
    )
    yield "real_data's student was made from the very images that all are compared on."
    yield from (f"failed: {failure}" for failure in analysis.failures)


def _part_header(part: Agreement) -> str:
    names = {"all": "all", "informative": "top {:.0f} %", "background": "bottom {:.0f} %"}
    return names[part.patches].format(100 * part.kept)


def _agreement_cell(part: Agreement) -> str:
    kl = MISSING if part.kl is None else fixed(part.kl, 2)
    return f"{part.agreement_percent:.1f} / {kl}"


def _terminal(analysis: Analysis, console: Console) -> str:
    from rich.text import Text

    with console.capture() as captured:
        for content in _tables(analysis):
            console.print(_fitted(content))
        for note in _footnotes(analysis):
            console.print(Text(note, style="dim"))
    return captured.get()


def _fitted(content: _Table) -> FittedTable:
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
    for table in _tables(analysis):
        ruler = ("---" if index == 0 else "---:" for index in range(len(table.header)))
        rows = [table.header, tuple(ruler), *table.lines]
        parts.append(f"### {table.title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in rows))
    parts.append("\n".join(f"- {note}" for note in _footnotes(analysis)))
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
        "range_ratios": {name: analysis.range_ratios(name) for name in analysis.images},
        "failures": analysis.failures,
    }
    return json.dumps(content, indent=2) + "\n"
