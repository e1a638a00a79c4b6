"""How a verb ends before its work is done: what happened, what is kept, and the command to go on with.

Stopped by Ctrl-C, SIGTERM or SIGHUP it has status 130; when what its stages run on was lost, status 3.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

import typer

from harness.cli.hints import shell_words
from harness.errors import RunCutShort
from results.addresses import shown_address

if TYPE_CHECKING:
    from rich.console import Console


@contextlib.contextmanager
def stoppable(console: Console, what_is_kept: str, resume_with: Sequence[str] = ()) -> Iterator[None]:
    """Ctrl-C, SIGTERM, SIGHUP and a run cut short inside end with a status, what is kept, and a command.

    That command is the one that was given, without passwords, with the words of `resume_with` that it lacks.
    """
    terminate_as_interrupt()
    try:
        yield
    except KeyboardInterrupt:
        status, happened = 130, "stopped"
    except RunCutShort as error:
        status, happened = 3, str(error)
    else:
        return
    given = [shown_address(word) if "://" in word else word for word in sys.argv[1:]]
    command = shell_words(["harness", *given, *(word for word in resume_with if word not in given)])
    with contextlib.suppress(OSError):  # the terminal that hung up is gone
        console.print(f"{happened}. {what_is_kept}\n  {command}", markup=False, soft_wrap=True)
    raise typer.Exit(status)


def terminate_as_interrupt() -> None:
    """SIGTERM and SIGHUP end this process as Ctrl-C does.

    A SIGHUP that the process was started to ignore, as `nohup` does, stays ignored.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
