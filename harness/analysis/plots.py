"""Draws an analysis: where attention lies, what patches carry, how ranges fit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.report import Analysis
from harness.store.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_plots(analysis: Analysis, folder: Path) -> list[Path]:
    """Write sparsity.png, dependence.png and ranges.png into `folder`; gives their paths."""
    drawings = {"sparsity": _sparsity, "dependence": _dependence, "ranges": _ranges}
    paths = []
    for name, draw in drawings.items():
        path = folder / f"{name}.png"
        picture = io.BytesIO()
        draw(analysis).savefig(picture, dpi=150)
        write_bytes(path, picture.getvalue())
        paths.append(path)
    return paths


def _sparsity(analysis: Analysis) -> Figure:
    figure, (axes,) = _figure(1)
    for colour, (name, facts) in enumerate(analysis.images.items()):
        patches = len(facts.curve)
        shares = [100 * k / patches for k in range(patches + 1)]
        axes.plot(shares, [0.0, *(100 * mass for mass in facts.curve)], label=name, color=f"C{colour}")
    axes.plot([0, 100], [0, 100], color="grey", linestyle=":", label="equal attention")
    axes.set(
        title=f"Attention of {analysis.settings['backbone']}",
        xlabel="strongest patches, % of all",
        ylabel="attention mass they hold, %",
    )
    axes.legend()
    return figure


def _dependence(analysis: Analysis) -> Figure:
    from matplotlib.lines import Line2D

    figure, panels = _figure(2)
    kinds = (("the images they were made from", analysis.own), ("real images", analysis.real))
    for axes, (kind, facts) in zip(panels, kinds, strict=True):
        for colour, found in enumerate(facts.values()):
            for patches, style in (("informative", "-"), ("background", "--")):
                parts = [part for part in found.agreements if part.patches in (patches, "all")]
                parts.sort(key=lambda part: part.kept)
                shares = [100 * part.kept for part in parts]
                heights = [part.agreement_percent for part in parts]
                axes.plot(shares, heights, color=f"C{colour}", linestyle=style, marker="o")
        axes.set(
            title=f"Students on {kind}",
            xlabel="patches the student sees, %",
            ylabel="same answer as the teacher on the whole image, %",
            ylim=(0, 102),
        )
    lines = [Line2D([], [], color=f"C{colour}") for colour in range(len(analysis.own))]
    styles = [Line2D([], [], color="grey", linestyle=style, marker="o") for style in ("-", "--")]
    names = [*analysis.own, "most attended patches", "least attended patches"]
    figure.legend([*lines, *styles], names, loc="outside lower center", ncols=len(names))
    return figure


def _ranges(analysis: Analysis) -> Figure:
    from matplotlib.ticker import StrMethodFormatter

    figure, (axes,) = _figure(1)
    for colour, name in enumerate(analysis.images):
        if name == "real_data":
            axes.axhline(1, color=f"C{colour}", label=name)
            continue
        axes.plot(list(analysis.range_ratios(name).values()), label=name, color=f"C{colour}", marker=".")
    axes.set(
        title="Activation ranges: above 1 wastes levels, below 1 clips",
        xlabel="quantization point, from input to logits",
        ylabel="width of the range over that on real images",
        yscale="log",
    )
    for axis_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_formatter(StrMethodFormatter("{x:.2g}"))
    axes.legend()
    return figure


def _figure(panels: int) -> tuple[Figure, list[Any]]:
    """A figure that no window system knows of, with its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * panels, 4.5), layout="constrained")
    return figure, [figure.add_subplot(1, panels, 1 + index) for index in range(panels)]
