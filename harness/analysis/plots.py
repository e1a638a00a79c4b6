"""Draws an analysis: where attention lies, what patches carry, how ranges fit, what moves the images."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.analysing import Analysis
from harness.analysis.measuring import TOP, Dependence
from harness.store.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_plots(analysis: Analysis, folder: Path) -> list[Path]:
    """Write sparsity.png, heads.png, dependence.png and ranges.png into `folder`; gives their paths.

    gradients.png too, where a set was made with more than one loss term.
    """
    drawings = {"sparsity": _sparsity, "heads": _heads, "dependence": _dependence, "ranges": _ranges}
    if analysis.gradient_shares:
        drawings["gradients"] = _gradients
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


def _heads(analysis: Analysis) -> Figure:
    """A panel per set: layers from left to right, heads from top to bottom; darkest is uniform attention."""
    from matplotlib.ticker import MaxNLocator

    figure, panels = _figure(len(analysis.images), width=4.5)
    highest = max(mass for facts in analysis.images.values() for heads in facts.heads for mass in heads)
    for axes, (name, facts) in zip(panels, analysis.images.items(), strict=True):
        most = max(map(len, facts.heads))
        rows = [
            [heads[row] if row < len(heads) else math.nan for heads in facts.heads] for row in range(most)
        ]
        percents = [[100 * mass for mass in row] for row in rows]
        extent = (0.5, len(facts.heads) + 0.5, most + 0.5, 0.5)
        bounds = {"vmin": 100 * analysis.evenly, "vmax": 100 * highest}
        picture = axes.imshow(percents, extent=extent, aspect="auto", interpolation="nearest", **bounds)
        axes.set(title=name, xlabel="layer", ylabel="head", yticks=range(1, most + 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(picture, ax=panels, label=f"attention in the top {100 * TOP:.0f} % of patches, %")
    return figure


_STYLES: dict[str, Any] = {"top": "-", "random": ":", "bottom": "--"}


def _dependence(analysis: Analysis) -> Figure:
    from matplotlib.lines import Line2D

    figure, panels = _figure(3)
    kinds: tuple[tuple[str, dict[str, Dependence]], ...] = (
        ("Teacher on each set", {name: facts.dependence for name, facts in analysis.images.items()}),
        ("Students on their own images", {name: f.dependence for name, f in analysis.own.items()}),
        ("Students on real images", {name: f.dependence for name, f in analysis.real.items()}),
    )
    for axes, (title, found) in zip(panels, kinds, strict=True):
        for colour, dependence in enumerate(found.values()):
            for patches, style in _STYLES.items():
                views = sorted(view for view in dependence.answers if view.patches in (patches, "all"))
                shares = [100 * view.kept for view in views]
                heights = [dependence.answers[view].agreement_percent for view in views]
                axes.plot(shares, heights, color=f"C{colour}", linestyle=style, marker="o")
        axes.set(
            title=title,
            xlabel="patches the model sees, %",
            ylabel="teacher's answer on the whole image, %",
            ylim=(0, 102),
        )
    lines = [Line2D([], [], color=f"C{colour}") for colour in range(len(analysis.own))]
    styles = [Line2D([], [], color="grey", linestyle=style, marker="o") for style in _STYLES.values()]
    names = [*analysis.own, "most attended patches", "random patches", "least attended patches"]
    figure.legend([*lines, *styles], names, loc="outside lower center", ncols=len(names))
    return figure


def _gradients(analysis: Analysis) -> Figure:
    """A panel per set, a line per loss term."""
    figure, panels = _figure(len(analysis.gradient_shares))
    for axes, (name, found) in zip(panels, analysis.gradient_shares.items(), strict=True):
        for term, values in found.shares.items():
            axes.plot(found.iterations, values, label=term, marker="o")
        axes.set(
            title=f"What moves the images of {name}",
            xlabel="iteration",
            ylabel="norm of the term's gradient over the whole",
            yscale="log",
        )
        axes.legend()
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


def _figure(panels: int, *, width: float = 6.5) -> tuple[Figure, list[Any]]:
    """A figure that no window system knows of, with its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * panels, 4.5), layout="constrained")
    return figure, [figure.add_subplot(1, panels, 1 + index) for index in range(panels)]
