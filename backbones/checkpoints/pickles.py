"""Reading what torch.save wrote without running anything that its pickle names.

Train scripts store their arguments and counters beside the weights: an argparse.Namespace, numpy scalars,
a config. torch reads tensors and plain containers alone (`weights_only`); every other class or function
that the pickle names is replaced by a stand-in that does nothing, since nobody asks for their values.
"""

from __future__ import annotations

import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from backbones.checkpoints.kinds import Unreadable

_LEGACY_PICKLES = 5
"""Pickles before the bytes of tensors in files of torch before 1.6: magic, protocol, sizes, content, keys."""
_WITH_OWN_STATE = ("numpy.", "functools.")
"""Modules whose objects store a state that is no dictionary."""


def load_inert(path: Path, *, is_zip: bool) -> object:
    """The content of a file of torch.save, on the CPU; the tensors of a zip archive are read when used.

    Objects of other classes become an OrderedDict, with their entries, and their attributes as its own.
    Raises Unreadable where the file is damaged or can only be read by running code.
    """
    import torch

    try:
        names = sorted(_names_in(path, is_zip=is_zip))
        stand_ins: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
            (_stand_in(name), name) for name in names
        ]
        with torch.serialization.safe_globals(stand_ins), path.open("rb") as file:
            # Mapping needs a path, and torch.load takes any path that ends so for safetensors.
            mapped = is_zip and path.suffix != ".safetensors"
            content: object = torch.load(
                path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped
            )
    except Exception as error:  # torch raises nearly anything on a damaged file
        raise Unreadable(_reason(error)) from None
    return content


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "is blocked" in text or "unrecognized function" in text:
        return "its pickle wants code to be run, which is refused; store the model's state_dict() alone"
    _, _, reason = text.rpartition("WeightsUnpickler error: ")
    return f"the file is truncated or damaged ({reason[:160] or type(error).__name__})"


def _names_in(path: Path, *, is_zip: bool) -> set[str]:
    """The classes and functions that a file's pickles name and that torch does not read by itself."""
    if not is_zip:
        with path.open("rb") as file:
            return {name for _ in range(_LEGACY_PICKLES) for name in _names_of(file)}
    with zipfile.ZipFile(path) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        with archive.open(pickled) as file:
            return set(_names_of(file))


def _names_of(file: IO[bytes]) -> Iterator[str]:
    for code, argument, _ in pickletools.genops(file):
        if code.name == "GLOBAL" and isinstance(argument, str):
            module, _, name = argument.partition(" ")
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            yield f"{module}.{name}"


def _stand_in(name: str) -> type:
    """A class of that name whose objects hold what they are given and do nothing."""
    if name == "collections.deque":
        return list
    return type(name, (_Opaque if name.startswith(_WITH_OWN_STATE) else _Container,), {})


class _Container:
    """Becomes an ordered dictionary, to which torch adds entries (a config) and attributes (a Namespace)."""

    def __new__(cls, *_: object, **__: object) -> OrderedDict[str, object]:  # type: ignore[misc]
        return OrderedDict()


class _Opaque:
    """Takes any arguments and any state and keeps none."""

    def __new__(cls, *_: object, **__: object) -> _Opaque:
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...
