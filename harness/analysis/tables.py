"""An analysis as tables to read, with the notes under them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.analysing import Analysis, image_row
from harness.analysis.measuring import PATCHES, TOP, WHOLE, Dependence, StudentFacts, View
from results.figures import MISSING, fixed

_KEPT = 0.25
"""Share of the patches in the tables; all of `measuring.KEPT_SHARES` are in the plots, csv and json."""
_UNIFORM = "uniform"


@dataclass(frozen=True)
class Table:
    """One of an analysis's tables; the first column names what a line is about."""

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def tables(analysis: Analysis) -> Iterator[Table]:
    """Each claim's figures first, then students, ranges, and what moved the images."""
    where = "{backbone}, {measured_images} images of each set".format(**analysis.settings)
    student = "{bits}, {engine}, budget {budget}, seed {seed}".format(**analysis.settings)
    yield _concentration(analysis, f"Attention of the teacher ({where})")
    yield _layers(analysis, f"Attention in the top {100 * TOP:.0f} %, by layer, mean over heads, %")
    yield _margins(analysis, f"Same answer as the teacher on whole images, %: {_kept()}, own images")
    yield _real_margins(analysis, f"As above, students ({student}) on real images")
    yield _information(analysis, f"Information on the teacher's answer, nats: {_kept()}, own images")
    yield _students(analysis, f"Students ({student})")
    yield _ranges(analysis, "Activation ranges on the teacher, over those on real images")
    if analysis.gradient_shares:
        yield _gradients(analysis, "Gradient of each loss term with respect to the images, over the whole")


def _kept() -> str:
    return f"{100 * _KEPT:.0f} % of the patches kept"


def _concentration(analysis: Analysis, title: str) -> Table:
    header = ("Images", "Averaged", "Half in", "By head", "Last layer", "Lowest head", "Highest head")
    lines = []
    for name, facts in analysis.images.items():
        row, last = image_row(analysis, name), facts.heads[-1]
        columns = ("mass_of_top_tenth", "patches_for_half_the_mass", "mass_of_top_tenth_by_head")
        shares = [*(row[column] for column in columns), facts.layers[-1], min(last), max(last)]
        lines.append((name, *map(_percent, shares)))
    even = _percent(analysis.evenly)
    return Table(title, header, (*lines, (_UNIFORM, even, _percent(0.5), even, even, even, even)))


def _layers(analysis: Analysis, title: str) -> Table:
    columns = [facts.layers for facts in analysis.images.values()]
    even = _percent(analysis.evenly)
    lines = [
        (str(layer), *map(_percent, found), even)
        for layer, found in enumerate(zip(*columns, strict=True), start=1)
    ]
    return Table(title, ("Layer", *analysis.images, _UNIFORM), tuple(lines))


_MARGINS = ("Top", "Random", "Bottom", "Top - random", "Top - bottom")


def _margins(analysis: Analysis, title: str) -> Table:
    lines = [
        (name, model, *_margin_cells(dependence))
        for name in analysis.images
        for model, dependence in _models(analysis, name)
    ]
    return Table(title, ("Images", "Model", *_MARGINS), tuple(lines))


def _real_margins(analysis: Analysis, title: str) -> Table:
    lines = [(name, *_margin_cells(facts.dependence)) for name, facts in analysis.real.items()]
    return Table(title, ("Student of", *_MARGINS), tuple(lines))


def _models(analysis: Analysis, name: str) -> tuple[tuple[str, Dependence], ...]:
    """Teacher and student, on the set itself."""
    return ("P", analysis.images[name].dependence), ("Q", analysis.own[name].dependence)


def _margin_cells(dependence: Dependence) -> tuple[str, ...]:
    shares = [f"{dependence.answers[View(_KEPT, patches)].agreement_percent:.1f}" for patches in PATCHES]
    margins = [
        f"{margin.points:+.1f} ±{margin.interval:.1f}"
        for margin in dependence.margins
        if margin.kept == _KEPT
    ]
    return (*shares, *margins)


def _information(analysis: Analysis, title: str) -> Table:
    lines = []
    for name, facts in analysis.images.items():
        for model, dependence in _models(analysis, name):
            found = [dependence.answers[view].information for view in _views_in_order()]
            lines.append((name, model, *map(_nats, found), _nats(facts.entropy)))
    return Table(title, ("Images", "Model", "Top", "Random", "Bottom", "Whole", "At most"), tuple(lines))


def _views_in_order() -> tuple[View, ...]:
    return (*(View(_KEPT, patches) for patches in PATCHES), WHOLE)


def _students(analysis: Analysis, title: str) -> Table:
    header = ("Student of", "Distance", "Agree", "KL", "Distance, real", "Agree, real", "KL, real")
    lines = [(name, *_whole(analysis.own[name]), *_whole(analysis.real[name])) for name in analysis.own]
    return Table(title, header, tuple(lines))


def _whole(facts: StudentFacts) -> tuple[str, str, str]:
    whole = facts.dependence.answers[WHOLE]
    return f"{facts.mean_distance:.3f}", f"{whole.agreement_percent:.1f}", _nats(whole.kl)


def _ranges(analysis: Analysis, title: str) -> Table:
    rows = [image_row(analysis, name) for name in analysis.images]
    lines = [
        (
            row["images"],
            f"{row['range_ratio_median']:.2f}",
            f"{row['range_ratio_worst']:.2f}",
            row["range_ratio_worst_point"],
        )
        for row in rows
    ]
    return Table(title, ("Images", "Median", "Worst", "at"), tuple(lines))


def _gradients(analysis: Analysis, title: str) -> Table:
    lines = [
        (name, term, *(f"{value:.3f}" for value in (min(values), statistics.mean(values), max(values))))
        for name, found in analysis.gradient_shares.items()
        for term, values in found.shares.items()
    ]
    return Table(title, ("Images", "Loss term", "Lowest", "Mean", "Highest"), tuple(lines))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _nats(value: float | None) -> str:
    return MISSING if value is None else fixed(value, 2)


def footnotes(analysis: Analysis) -> Iterator[str]:
    """How to read the tables, after what makes them uncertain."""
    yield from (f"warning: {warning}" for warning in analysis.warnings)
    yield (
        "Attention: percent of the CLS-to-patch mass (Swin: of the mass received in windows) in the top "
        f"{100 * TOP:.0f} % of the patches. Averaged: of maps averaged over heads and layers; half in: how "
        "many percent of the patches hold half of that. By head: in every head's own top patches, mean over "
        "heads and layers; then over the last layer's heads, and its lowest and highest head."
    )
    yield (
        "Answers: the model sees only the patches with the most attention of the teacher (top), the least "
        "(bottom), or any (random); the others are the data set's mean. P is the teacher, Q the student of "
        "these images. ±: 95 % interval, paired by image; a margin within it may be chance."
    )
    yield (
        "Information: of the answers on these patches, on the class that P sees in the whole image, "
        "estimated from below (InfoNCE over the images' classes): too low for answers that are not "
        "calibrated, and never above the last column, the entropy of these classes. One fitted number adds "
        f"about {1 / (2 * analysis.settings['measured_images']):.3f}. A difference of two is no bound."
    )
    yield (
        "Distance: total variation between the maps of teacher and student, mean over layers. Agree and KL: "
        "the student's answers beside the teacher's, whole images. real_data's student was made from the "
        "very images that all are compared on."
    )
    yield "Ranges: width over that on real images, by point of psaq_ptq; below 1 clips, above wastes levels."
    if analysis.gradient_shares:
        yield (
            "Gradient: norm of a term's gradient, weight included, over the norm of the sum of all, at some "
            "iterations of the first batch; terms that oppose each other exceed 1 together."
        )
    yield from (f"failed: {failure}" for failure in analysis.failures)
