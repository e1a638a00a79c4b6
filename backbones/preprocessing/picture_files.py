"""Picture files as they lie on a disk: finding them, printing their names, the range of their values.

Knows nothing of what a picture is resized to; `transforms` does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"})
_NAMED = 5
"""Names that a sentence lists; it counts the others."""
_WIDE_FORMATS = frozenset({"PNG", "PPM"})
"""Formats whose pictures of PIL's mode `I` reach from 0 to 65,535."""


class PictureFiles(NamedTuple):
    """What a search of a folder found."""

    paths: tuple[Path, ...]
    """Regular files with a picture's name, sorted by their path below the folder."""
    unopened: tuple[str, ...]
    """Paths below the folder of what cannot be opened: links to nowhere, locked folders, pipes."""


def is_image(name: str) -> bool:
    """Whether a file name is that of a picture; hidden files are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _SUFFIXES


def pictures_under(folder: Path) -> PictureFiles:
    """The pictures in a folder and in the folders inside it; hidden ones are passed over.

    Links to folders are followed. A folder that several paths lead to is searched once, by its own path where
    that lies inside; a link to a folder that holds the searched one is a loop and is not followed.
    """
    top = os.path.realpath(folder)
    seen: set[str] = set()
    paths: list[Path] = []
    unopened: list[str] = []
    places, linked = [str(folder)], list[str]()
    while places or linked:
        place = places.pop() if places else linked.pop(0)
        real = os.path.realpath(place)
        if real in seen or (top != real and os.path.commonpath([top, real]) == real):
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            unopened.append(os.path.relpath(place, folder))
            continue
        for entry in entries:
            kind = "hidden" if entry.name.startswith(".") else _kind(entry)
            if kind == "folder":
                (linked if entry.is_symlink() else places).append(entry.path)
            elif kind == "file" and is_image(entry.name):
                paths.append(Path(entry.path))
            elif kind == "other" and is_image(entry.name):
                unopened.append(os.path.relpath(entry.path, folder))
    paths.sort(key=lambda path: path.relative_to(folder).as_posix())
    return PictureFiles(tuple(paths), tuple(sorted(unopened)))


def printable(name: str) -> str:
    """A file name as text that every encoding of Unicode can write, on one line.

    >>> printable(os.fsdecode(b"caf\\xe9.png"))
    'caf\\\\xe9.png'
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(what: str, names: Sequence[str]) -> str:
    """`what: 7 (a, b, c, d, e and 2 more)`, the names printable."""
    return f"{what}: {len(names)} ({some(names)})"


def some(names: Sequence[str]) -> str:
    """The first names, printable, and how many more there are."""
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + rest


def in_bytes(image: Image) -> Image | None:
    """The picture with values of 0 to 255; none where the range of its values is not known.

    Sixteen bits are scaled. Floats and whole numbers of 32 bits have no range that a file states.
    """
    import numpy as np
    from PIL.Image import fromarray

    if _is_wide(image):
        wide = np.asarray(image).astype(np.uint32)
        return fromarray(((wide + 128) // 257).astype(np.uint8))
    return None if image.mode in ("I", "F") else image


def _is_wide(image: Image) -> bool:
    """Whether the picture's values reach from 0 to 65,535."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in _WIDE_FORMATS)


def _kind(entry: os.DirEntry[str]) -> Literal["folder", "file", "other"]:
    """What an entry is after links; a link in a circle or to nowhere is neither file nor folder."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError:
        return "other"
