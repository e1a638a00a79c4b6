"""Commands that a user may copy from the terminal: quoted for a shell, in one piece however long they are."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable


def shell_words(words: Iterable[str]) -> str:
    """The words as a shell reads them again; what a terminal cannot show is written as `$'\\x1b'`."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
