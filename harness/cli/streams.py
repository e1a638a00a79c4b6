"""Standard output and errors that take every character: one that the terminal lacks becomes another."""

from __future__ import annotations

import codecs
import io
import sys

_PLAIN = {"–": "-", "—": "-", "…": "...", "±": "+-", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "·": "."}


def never_fail_to_encode() -> None:
    """Print `+-` for `±` and so on where the terminal's encoding lacks a character; `?` for any other."""
    codecs.register_error("harness-plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="harness-plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in lacking), error.end
