"""Tables that fit a terminal: numbers stay whole, names fold, and columns without room are named below.

    table = FittedTable([Column("stage"), Column("took", number=True), Column("key", leaves=1)], "A run")
    table.add("evaluate", "2.5 s", "0a1b")
    console.print(table)

Where the terminal is too narrow, headers wrap first and texts fold to their `least`; then columns leave,
those with the largest `leaves` first; then texts fold as far as the figures in them allow. On a terminal that
lacks room even for that, every row becomes a line per cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

_SHORT_HEADER = 10
"""Characters up to which a header stays in one line."""
_NARROWEST = 8
"""Characters to which any text may fold in the end."""
_FIGURES = re.compile(r"[-+±]?\d[\d.,:/%e+-]*")
_ATOMS = re.compile(rf"{_FIGURES.pattern}|[^\d_/.-]*[_/.-]?")
"""What a word that is too long is folded between: figures, and what ends with a sign that joins words."""


@dataclass(frozen=True)
class Column:
    """One column; a number is never broken, a text may fold."""

    name: str
    number: bool = False
    """Whether its cells are set to the right and kept whole; a key or another single word may be one."""
    least: int | None = None
    """Characters to which a text may fold while other columns could leave instead; None: not at all."""
    leaves: int = 0
    """Columns leave from the largest number down where there is no room; 0 stays."""
    left: bool = False
    """Whether a `number` is set to the left all the same."""


@dataclass
class FittedTable:
    """A table that rich prints in the width there is; cells are literal, no markup is read in them."""

    columns: Sequence[Column]
    title: str = ""
    elsewhere: str = "A wider terminal shows them."
    """Where a reader finds the columns that were left out."""
    sections: list[list[tuple[tuple[str, ...], tuple[str, ...]]]] = field(default_factory=lambda: [[]])
    """Rows between two blank lines, each as its cells and their styles."""

    def add(self, *cells: str, styles: Sequence[str] = ()) -> None:
        """Add a row, a cell per column; `styles` are rich's, one per cell."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.sections[-1].append((cells, tuple(styles) or ("",) * len(cells)))

    def end_section(self) -> None:
        """Set the rows that follow apart from those before."""
        self.sections.append([])

    @property
    def rows(self) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """The rows of all sections."""
        return [row for section in self.sections for row in section]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        if self.title:
            yield Text(self.title, style="table.title")
        if not self.rows:
            return
        table, left_out = self._narrowed(options.max_width)
        widths = table.widths(options.max_width)
        if widths is None:
            yield from self._as_lines()
            return
        yield table._drawn(widths, options.max_width)
        if left_out:
            names = ", ".join(left_out).removesuffix(".")
            said = f"Left out at {options.max_width} columns: {names}. {self.elsewhere}"
            yield Text(said, style="dim")

    def _narrowed(self, width: int) -> tuple[FittedTable, list[str]]:
        """The table without the columns that have no room, and their names in the order they left."""
        kept, left_out = list(range(len(self.columns))), []
        leaving = sorted((i for i in kept if self.columns[i].leaves), key=lambda i: self.columns[i].leaves)
        while leaving and not self._without_others(kept)._has_room(width):
            kept.remove(leaving[-1])
            left_out.append(self.columns[leaving.pop()].name)
        return self._without_others(kept), left_out

    def _without_others(self, kept: Sequence[int]) -> FittedTable:
        def chosen(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[index] for index in kept)

        sections = [[(chosen(cells), chosen(styles)) for cells, styles in part] for part in self.sections]
        return replace(self, columns=[self.columns[index] for index in kept], sections=sections)

    def _has_room(self, width: int) -> bool:
        return sum(_least(*pair) for pair in self._with_cells()) <= self._room(width)

    def widths(self, width: int) -> list[int] | None:
        """Characters of every column in a terminal of that width; None where it has no room for them."""
        pairs = self._with_cells()
        widths = [max(_longest(c.name), *map(_longest, cells)) for c, cells in pairs]
        least = [_least(*pair) for pair in pairs]
        numbers = [low if c.number else now for (c, _), low, now in zip(pairs, least, widths, strict=True)]
        for floors in (numbers, least, [_least_at_last(*pair) for pair in pairs]):
            widths = _shrunk(widths, floors, self._room(width))
        return widths if sum(widths) <= self._room(width) else None

    def _with_cells(self) -> list[tuple[Column, list[str]]]:
        return [(c, [cells[index] for cells, _ in self.rows]) for index, c in enumerate(self.columns)]

    def _room(self, width: int) -> int:
        """Characters for cells: one goes between columns and one at both edges."""
        return width - len(self.columns) - 1

    def _drawn(self, widths: Sequence[int], width: int) -> RenderableType:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        gap = int(sum(widths) + len(widths) - 1 <= self._room(width))
        table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False)
        for column, least in zip(self.columns, widths, strict=True):
            justify = "right" if column.number and not column.left else "left"
            table.add_column(Text(column.name), justify=justify, overflow="fold", width=least)  # type: ignore[arg-type]
        for section in self.sections:
            for cells, styles in section:
                folded = map(_folded, cells, widths)
                table.add_row(*(Text(cell, style=style) for cell, style in zip(folded, styles, strict=True)))
            table.add_section()
        return table

    def _as_lines(self) -> Iterator[RenderableType]:
        from rich.text import Text

        for cells, styles in self.rows:
            for column, cell, style in zip(self.columns, cells, styles, strict=True):
                if cell:
                    yield Text(f"{column.name}: ", end="").append(cell, style=style).append("\n")
            yield Text("")


def _least(column: Column, cells: Sequence[str]) -> int:
    """The least characters of a column while others could leave; a long header takes a line per word."""
    header = [column.name] if len(column.name) <= _SHORT_HEADER else column.name.split()
    whole = max(map(_longest, [*cells, *header]))
    return whole if column.number or column.least is None else min(whole, column.least)


def _least_at_last(column: Column, cells: Sequence[str]) -> int:
    """The least characters of a column when no other can leave: texts fold, the figures in them do not."""
    least = _least(column, cells)
    if column.number:
        return least
    figures = (len(found) for cell in cells for found in _FIGURES.findall(cell))
    return min(least, max([_NARROWEST, *figures]))


def _longest(text: str) -> int:
    """Cells of the terminal that the longest line of a text takes."""
    from rich.cells import cell_len

    return max(map(cell_len, text.split("\n")))


def _folded(text: str, width: int) -> str:
    """The text with line breaks between words, and in words wider than `width`; never in a figure."""
    from rich.cells import cell_len

    lines = []
    for given in text.split("\n"):
        line = ""
        for word in given.split(" "):
            if cell_len(longer := f"{line} {word}" if line else word) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            *whole, line = _pieces(word, width)
            lines += whole
        lines.append(line)
    return "\n".join(lines)


def _pieces(word: str, width: int) -> list[str]:
    from rich.cells import cell_len, chop_cells

    pieces = [""]
    for atom in _ATOMS.findall(word):
        if cell_len(pieces[-1] + atom) <= width:
            pieces[-1] += atom
        else:
            pieces += chop_cells(atom, width)
    return [piece for piece in pieces if piece] or [""]


def _shrunk(widths: Sequence[int], floors: Sequence[int], room: int) -> list[int]:
    """The widths, the widest made narrower until all fit or none is above its floor."""
    widths = list(widths)
    for _ in range(sum(widths) - room):
        above = [index for index, width in enumerate(widths) if width > floors[index]]
        if not above:
            break
        widths[max(above, key=lambda index: widths[index])] -= 1
    return widths
