"""Reading what torch.save wrote without running anything that its pickle names.

Train scripts store their arguments and counters beside the weights: an argparse.Namespace, numpy scalars,
a config. torch reads tensors and plain containers alone (`weights_only`); every other class or function
that the pickle names is replaced by a stand-in that does nothing, since nobody asks for their values.
"""

from __future__ import annotations

import pickletools
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from backbones.checkpoints.kinds import Unreadable

_LEGACY_PICKLES = 5
"""Pickles before the bytes of tensors in files of torch before 1.6: magic, protocol, sizes, content, keys."""
_PROTOCOL = 2
"""The latest protocol of pickle that torch reads without running anything; its own files have this one."""
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
        with (
            torch.serialization.safe_globals(stand_ins),
            path.open("rb") as file,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # torch doubts other protocols even where it can read them
            # Mapping needs a path, and torch.load takes any path that ends so for safetensors.
            mapped = is_zip and path.suffix != ".safetensors"
            content: object = torch.load(
                path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped
            )
    except Exception as error:  # torch raises nearly anything on a damaged file
        raise Unreadable(_reason(error, path, is_zip=is_zip)) from None
    return content


def _reason(error: Exception, path: Path, *, is_zip: bool) -> str:
    text = " ".join(str(error).split())
    if "persistent_load of storage" in text:
        return (
            "it is a whole model as torch before 1.6 pickled it, with its classes; load it where these are, "
            "and store the model's state_dict() alone"
        )
    if "Unsupported operand" in text and (protocol := _protocol_of(path, is_zip=is_zip)) > _PROTOCOL:
        return (
            f"it was pickled with protocol {protocol}, and torch reads weights without running code up to "
            f"protocol {_PROTOCOL} alone; load it where it was made and store it with torch.save(state_dict, "
            "FILE), without pickle_protocol"
        )
    if "is blocked" in text or "unrecognized function" in text:
        return "its pickle wants code to be run, which is refused; store the model's state_dict() alone"
    _, _, reason = text.rpartition("WeightsUnpickler error: ")
    return f"the file is truncated or damaged ({reason[:160] or type(error).__name__})"


def _protocol_of(path: Path, *, is_zip: bool) -> int:
    """The protocol of the pickle that holds a file's content; 0 where it does not say, or is damaged."""
    with suppress(Exception):  # as above: the file may be anything
        with _content_of(path, is_zip=is_zip) as file:
            code, argument, _ = next(pickletools.genops(file))
        if code.name == "PROTO" and argument is not None:
            return int(argument)
    return 0


def _names_in(path: Path, *, is_zip: bool) -> set[str]:
    """The classes and functions that a file's pickles name and that torch does not read by itself."""
    with _content_of(path, is_zip=is_zip) as file:
        return {name for _ in range(1 if is_zip else _LEGACY_PICKLES) for name in _names_of(file)}


@contextmanager
def _content_of(path: Path, *, is_zip: bool) -> Iterator[IO[bytes]]:
    """The pickles of a file: the one of an archive, or all that a legacy file begins with."""
    if not is_zip:
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        with archive.open(pickled) as inside:
            yield inside


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
