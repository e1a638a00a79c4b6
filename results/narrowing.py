"""Which columns of a leaderboard a terminal has room for: names and scores stay, secondary columns go."""

from __future__ import annotations

from results.view import PUBLISHED_COLUMN, Block, Line

METHOD_WIDTH = 16
"""Least characters of the column Method, which may wrap."""


def narrowed(block: Block, width: int) -> tuple[Block, list[str]]:
    """The block without the least needed columns where they do not fit; and the names of these."""
    left_out: list[str] = []
    beside = reversed(_beside(block))
    for name in (PUBLISHED_COLUMN, "Prot.", "Agree", "Oracle", "Cost", *beside, "Drop", "p"):
        if fits(block, width):
            break
        if name in block.header:
            block = _without(block, block.header.index(name))
            left_out.append(name)
    return block, left_out


def _beside(block: Block) -> tuple[str, ...]:
    """The columns between the score and the number of seeds: what a metric shows beside itself."""
    return block.header[block.header.index("Method") + 2 : block.header.index("n")]


def _without(block: Block, index: int) -> Block:
    def rest(cells: tuple[str, ...]) -> tuple[str, ...]:
        return cells[:index] + cells[index + 1 :]

    sections = tuple(tuple(Line(rest(line.cells), line.style) for line in part) for part in block.sections)
    return Block(block.title, rest(block.header), sections)


def _widths(block: Block) -> list[int]:
    """The least characters that each column needs; Method may wrap."""
    columns = zip(block.header, *(line.cells for part in block.sections for line in part), strict=True)
    widths = (max(map(len, cells)) for cells in columns)
    return [
        min(width, METHOD_WIDTH) if name == "Method" else width
        for name, width in zip(block.header, widths, strict=True)
    ]


def fits(block: Block, width: int, gap: int = 0) -> bool:
    """Whether the table has room: one character between columns and at both edges, `gap` more between."""
    widths = _widths(block)
    between = len(widths) - 1
    return sum(widths) + 2 + between + gap * between <= width


def gap_of(block: Block, width: int) -> int:
    """Blanks beside the one between columns: none on a narrow terminal, or where a table needs the room."""
    return int(width >= 115 and fits(block, width, gap=1))
