"""What error messages say of a user's words: the word itself, and the names that were perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 120
"""Letters of a user's value that a message shows."""


def suggestion(name: object, known: Iterable[str]) -> str:
    """': did you mean A or B?' when near names exist, else ': there are A, B, C' to end an error message."""
    names = sorted(known)
    near = difflib.get_close_matches(shown(name), names, n=3, cutoff=0.5)
    if near:
        return f": did you mean {' or '.join(near)}?"
    return f": there are {', '.join(names)}" if names else ""


def shown(value: object) -> str:
    """A user's value as a message shows it: on one line, printable, without the middle of a long one.

    >>> shown("two\\nlines"), shown(None), shown(0.5)
    ('two\\\\nlines', 'null', '0.5')
    """
    text = _text(value)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}...{text[3 - _LONGEST // 2 :]}"
    return escaped(text)


def escaped(text: str) -> str:
    """The text on one line, with what cannot be printed written as Python escapes it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object) -> str:
    """`shown`, in quotation marks where the value is text: '4' is not 4."""
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        return str(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"
