"""How a verb ends on Ctrl-C, SIGTERM or SIGHUP: status 130, what is kept, and the command to go on with."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

import typer

from results.addresses import shown_address

if TYPE_CHECKING:
    from rich.console import Console


@contextlib.contextmanager
def stoppable(console: Console, what_is_kept: str, resume_with: Sequence[str] = ()) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP inside end with status 130, what is kept, and the command to go on with.

    That command is the one that was given, without passwords, with the words of `resume_with` that it lacks.
    """
    terminate_as_interrupt()
    try:
        yield
    except KeyboardInterrupt:
        given = [shown_address(word) if "://" in word else word for word in sys.argv[1:]]
        command = shlex.join(["harness", *given, *(word for word in resume_with if word not in given)])
        with contextlib.suppress(OSError):  # the terminal that hung up is gone
            console.print(f"stopped. {what_is_kept}\n  {command}", markup=False, soft_wrap=True)
        raise typer.Exit(130) from None


def terminate_as_interrupt() -> None:
    """SIGTERM and SIGHUP end this process as Ctrl-C does; to be called again where a library took a signal.

    A SIGHUP that the process was started to ignore, as `nohup` does, stays ignored.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
