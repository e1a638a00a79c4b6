"""What a refusal has to look like, and a watch on what is written to the disk meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.errors import HarnessError

_INTERNALS = re.compile(
    r"object at 0x|<class |<function |Traceback|\w+Error\b|\w+Exception\b|NoneType|datetime\.|site-packages"
)
_LONGEST = 2000
"""Letters of a sentence, which may name a path of the user's and list every name there is."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def is_accepted(act: Callable[[], object], places: Sequence[str], refusal: type = HarnessError) -> bool:
    """Whether `act` goes through; where not, it is refused by sentences that name one of the places."""
    try:
        act()
    except refusal as error:
        for sentence in str(error).split("\n"):
            assert_is_sentence(sentence, places)
        return False
    return True


def assert_is_sentence(sentence: str, places: Sequence[str]) -> None:
    """One printable line for a person, that says where."""
    assert sentence.isprintable(), f"not printable: {sentence!a}"
    assert 10 < len(sentence) < _LONGEST, f"{len(sentence)} letters: {sentence[:300]}"
    assert any(place in sentence for place in places), f"says nowhere where: {sentence}"
    assert not (said := _INTERNALS.search(sentence)), f"speaks of {said[0] if said else ''}: {sentence}"


_watching: list[tuple[Path, list[str]]] = []


def _on_event(event: str, details: tuple[object, ...]) -> None:
    if not _watching or event not in ("open", "os.mkdir", "os.rename", "os.link", "sqlite3.connect"):
        return
    folder, found = _watching[-1]
    if event == "open" and not (isinstance(details[2], int) and details[2] & _WRITING):
        return
    for place in details[:2] if event in ("os.rename", "os.link") else details[:1]:
        if isinstance(place, str | bytes | os.PathLike):
            path = Path(os.path.abspath(os.fsdecode(place)))
            if not path.is_relative_to(folder) and path != Path(os.devnull) and path.suffix != ".pyc":
                found.append(f"{event} {path}")


sys.addaudithook(_on_event)


@contextlib.contextmanager
def nothing_written_outside(folder: Path) -> Iterator[None]:
    """Fail where something inside writes a file, or makes a folder, that does not lie below `folder`."""
    found: list[str] = []
    _watching.append((folder, found))
    try:
        yield
    finally:
        _watching.pop()
    assert not found, f"written outside of {folder}: {found}"
