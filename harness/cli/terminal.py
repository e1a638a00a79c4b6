"""The terminals that verbs print to; control characters in what is printed do not reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_PIPED_WIDTH = 120


def output_console() -> Console:
    """Standard output; wide enough for a leaderboard where it is no terminal."""
    from harness.cli.printable_console import PrintableConsole

    made = PrintableConsole(highlight=False, emoji=False)
    if made.is_terminal:
        return made
    return PrintableConsole(highlight=False, emoji=False, width=max(made.width, _PIPED_WIDTH))


def progress_console() -> Console:
    """Standard error, for what is said beside an output that may go to another program."""
    from harness.cli.printable_console import PrintableConsole

    return PrintableConsole(stderr=True, highlight=False, emoji=False)


def file_console(width: int) -> Console:
    """A console whose text goes into a file of that many columns."""
    from harness.cli.printable_console import PrintableConsole

    return PrintableConsole(highlight=False, emoji=False, width=width)
