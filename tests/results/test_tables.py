"""A table in any terminal: numbers whole, rows named, and what has no room said to be left out."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from results.tables import Column, FittedTable

COLUMNS = (
    Column("#", number=True),
    Column("Method", least=16),
    Column("Backbone"),
    Column("Top-1 %", number=True),
    Column("Range against real, median", number=True, leaves=1),
    Column("Cost", number=True, leaves=2),
    Column("Key", number=True, left=True, leaves=3),
)
ROWS = [
    ("1", "psaq_vit_with_a_long_name1281167 + block_reconstruction (tuned, 128 trials)", "deit_tiny",
     "97.25 ± 12.50", "1234.25", "0.4s+3.5h", "0123456789abcdef01234567"),
    ("12", "fp32", "maskrcnn_swin_tiny", "9.75", "-0.50", "3.0d", "89abcdef0123456789abcdef"),
]  # fmt: skip


def printed(table: FittedTable, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def table_of(*rows: tuple[str, ...]) -> FittedTable:
    table = FittedTable(COLUMNS, "A title")
    for row in rows:
        table.add(*row)
    return table


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
def test_every_number_is_whole_or_its_column_is_named_as_left_out(width):
    text = printed(table_of(*ROWS), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    squeezed = " ".join(text.split())
    left_out = re.search(r"Left out at \d+ columns: (.*)\. A wider terminal", squeezed)
    for row in ROWS:
        for column, cell in zip(COLUMNS, row, strict=True):
            if left_out and column.name in left_out[1]:
                assert column.leaves
                continue
            for figure in re.findall(r"[\d.]+", cell) if width > 24 else [cell[:8]]:
                assert figure in text, (column.name, figure)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_every_row_keeps_its_name_to_the_last_letter(width):
    text = printed(table_of(*ROWS), width)
    lines = [line.split(" ") for line in text.splitlines()]
    letters = "".join(word for line in lines for word in line)
    assert "fp32" in letters
    for part in ("psaq", "long", "1281167", "trials)"):
        assert part in letters


def test_columns_leave_in_the_order_they_say_and_only_where_they_must():
    assert "Left out" not in printed(table_of(*ROWS), 160)
    assert "Left out at 80 columns: Key. A wider" in printed(table_of(*ROWS), 80)
    assert "Left out at 60 columns: Key, Cost" in printed(table_of(*ROWS), 60)


def test_cells_are_literal():
    table = FittedTable([Column("a"), Column("b")], "[bold]title[/bold] :cat:")
    table.add("[red]x[/red]", ":cat: [/]")
    text = printed(table, 80)
    for word in ("[bold]title[/bold] :cat:", "[red]x[/red]", ":cat: [/]"):
        assert word in text


def test_wide_characters_take_the_room_they_need():
    table = FittedTable([Column("name"), Column("n", number=True)])
    table.add("日本語" * 20, "12345")
    text = printed(table, 60)
    assert "12345" in text
    assert text.count("日") == 20


def test_a_table_without_rows_is_its_title():
    assert printed(FittedTable(COLUMNS, "Nothing yet"), 80) == "Nothing yet\n"


def test_a_row_has_a_cell_per_column():
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        FittedTable([Column("a"), Column("b")]).add("x")
