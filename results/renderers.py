"""Writes a leaderboard for the terminal, Markdown, CSV, JSON, LaTeX or HTML, and escapes for each.

Terminal, Markdown, LaTeX and HTML show a `results.view`; CSV and JSON hold every column.
"""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from results.leaderboard import Board, columns
from results.tables import Column, FittedTable
from results.view import PUBLISHED_COLUMN, Block, Line, Style, View, view_of

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "md", "csv", "json", "latex", "html")

_NAMES = {"Method": 16, "Backbone": None}
"""The columns that may fold, and to how many characters before others leave."""
_ELSEWHERE = "A wider terminal shows them, and so does every other format."
_LEFT = ("Backbone", "Bits", "Method", "Prot.")
_RICH_STYLES: dict[Style, str] = {
    "plain": "",
    "best": "bold",
    "second": "",
    "reference": "dim italic",
    "failed": "red",
    "unverified": "bright_black",
}
_LATEX_SPECIALS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "–": "--",
}
_LATEX_MARKS = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "reference": r"\textit{{{}}}"}
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Leaderboard</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }}
th, td {{ padding: .2rem .6rem; text-align: right; }}
th.left, td.left {{ text-align: left; }}
thead, tbody {{ border-bottom: 1px solid; }}
.best {{ font-weight: bold; }}
.reference {{ font-style: italic; opacity: .7; }}
.failed {{ color: #c33; }}
.unverified {{ opacity: .6; }}
td.published {{ font-weight: normal; opacity: .7; }}
footer {{ font-size: .85rem; }}
</style>
<h1>Leaderboard</h1>
{blocks}
<footer>
{footnotes}
</footer>
</html>
"""


def render(board: Board, format: str, *, console: Console | None = None) -> str:
    """The leaderboard as text in one of `FORMATS`; raises ValueError for another one.

    `console` decides width and colours of `table`; the default is rich's own for standard output.
    """
    if format == "table":
        return _terminal(view_of(board), console)
    writers: dict[str, Callable[[], str]] = {
        "md": lambda: _markdown(view_of(board)),
        "latex": lambda: _latex(view_of(board)),
        "html": lambda: _html(view_of(board)),
        "csv": lambda: _csv(board),
        "json": lambda: _json(board),
    }
    if format not in writers:
        raise ValueError(f"unknown format '{format}': one of {', '.join(FORMATS)}")
    return writers[format]()


def _terminal(view: View, console: Console | None) -> str:
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    with console.capture() as captured:
        for block in view.blocks:
            console.print(_fitted(block))
        for note in view.footnotes:
            console.print(Text(note, style="dim"))
    return captured.get()


def _fitted(block: Block) -> FittedTable:
    """The block for a terminal: names and scores stay, secondary columns go where there is no room."""
    leaves = {name: place for place, name in enumerate(_leaving(block), start=1)}
    columns = [
        Column(name, name not in _NAMES, _NAMES.get(name), leaves.get(name, 0), left=name in _LEFT)
        for name in block.header
    ]
    table = FittedTable(columns, block.title, _ELSEWHERE)
    for section in block.sections:
        for line in section:
            styles = [_RICH_STYLES[line.style]] * len(line.cells)
            if PUBLISHED_COLUMN in block.header:
                styles[block.header.index(PUBLISHED_COLUMN)] = "dim"
            table.add(*line.cells, styles=styles)
        table.end_section()
    return table


def _leaving(block: Block) -> Iterator[str]:
    """The columns that may be left out, the most needed first."""
    yield from ("p", "Drop")
    yield from block.header[block.header.index("Method") + 2 : block.header.index("n")]
    yield from ("Cost", "Oracle", "Agree", "Prot.", PUBLISHED_COLUMN)


def _markdown(view: View) -> str:
    parts = []
    for block in view.blocks:
        ruler = ("---" if name in _LEFT else "---:" for name in block.header)
        lines = [_markdown_row(map(_escape_markdown, block.header)), _markdown_row(ruler)]
        for line in _lines(block):
            lines.append(_markdown_row(_marked(line, _escape_markdown, best="**{}**", reference="*{}*")))
        parts.append(f"### {_escape_markdown(block.title)}\n\n" + "\n".join(lines))
    if view.footnotes:
        parts.append("\n".join(f"- {_escape_markdown(note)}" for note in view.footnotes))
    return "\n\n".join(parts) + "\n"


def _markdown_row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _escape_markdown(text: str) -> str:
    """Literal text in a table cell; underscores inside words mean nothing in Markdown and stay readable."""
    flat = " ".join(text.split())
    return re.sub(r"([\\`*<|\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", flat)


def _latex(view: View) -> str:
    """One booktabs table per block; needs \\usepackage{booktabs}."""
    parts = []
    for block in view.blocks:
        columns = "".join("l" if name in _LEFT else "r" for name in block.header)
        bodies = [
            "\n".join(" & ".join(_marked(line, _escape_latex, **_LATEX_MARKS)) + r" \\" for line in section)
            for section in block.sections
        ]
        lines = [
            r"\begin{table}",
            rf"\caption{{{_escape_latex(block.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(_escape_latex, block.header)) + r" \\",
            r"\midrule",
            "\n\\midrule\n".join(bodies),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    notes = "\n".join(rf"\par {_escape_latex(note)}" for note in view.footnotes)
    return "\n\n".join([*parts, f"{{\\footnotesize\n{notes}\n}}"]) + "\n"


def _escape_latex(text: str) -> str:
    flat = " ".join(text.split())
    return "".join(_LATEX_SPECIALS.get(character, character) for character in flat)


def _html(view: View) -> str:
    blocks = "\n".join(_html_block(block) for block in view.blocks)
    footnotes = "\n".join(f"<p>{html.escape(note)}</p>" for note in view.footnotes)
    return _PAGE.format(blocks=blocks, footnotes=footnotes)


def _html_block(block: Block) -> str:
    def cell(tag: str, name: str, text: str) -> str:
        kind = "left" if name in _LEFT else "published" if name == PUBLISHED_COLUMN else ""
        attribute = f' class="{kind}"' if kind else ""
        return f"<{tag}{attribute}>{html.escape(text)}</{tag}>"

    def row(line: Line) -> str:
        cells = "".join(cell("td", *pair) for pair in zip(block.header, line.cells, strict=True))
        return f'<tr class="{line.style}">{cells}</tr>'

    header = "".join(cell("th", name, name) for name in block.header)
    bodies = "\n".join(f"<tbody>\n{chr(10).join(map(row, section))}\n</tbody>" for section in block.sections)
    return (
        f"<h2>{html.escape(block.title)}</h2>\n"
        f'<div class="wide"><table>\n<thead><tr>{header}</tr></thead>\n{bodies}\n</table></div>'
    )


def _lines(block: Block) -> Iterator[Line]:
    return (line for section in block.sections for line in section)


def _marked(line: Line, escape: Callable[[str], str], **patterns: str) -> list[str]:
    """Escaped cells; the method's name and score of a row are set off by the pattern of its style."""
    pattern = patterns.get(line.style, "{}")
    return [
        pattern.format(escape(cell)) if index in (3, 4) else escape(cell)
        for index, cell in enumerate(line.cells)
    ]


def _csv(board: Board) -> str:
    """Every column; tuples are joined with '; '."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns()), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in board.rows:
        others = (f"{other['value']} ({other['source']})" for other in row["published_others"])
        writer.writerow({**row, "published_others": "; ".join(others), "notes": "; ".join(row["notes"])})
    return text.getvalue()


def _json(board: Board) -> str:
    """A list of rows with every column; null where a number is missing."""
    rows = [{name: _plain(value) for name, value in row.items()} for row in board.rows]
    return json.dumps(rows, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
