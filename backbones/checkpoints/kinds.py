"""What a file is by its content, whatever its name: weights in one of two formats, or something else, named.

A download that went wrong leaves a web page, a pointer or half a file under the right name. Knows nothing
about models.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Literal

Kind = Literal["safetensors", "zip", "legacy"]
"""safetensors, or torch's file: a zip archive, or before torch 1.6 a stream of pickles."""

_OTHERS = (
    (b"\x89HDF", "an HDF5 file (Keras)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a rar archive; unpack it first"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GGUF", "a GGUF file"),
)
_HTML = (b"<!doctype html", b"<html", b"<head", b"<!--")
_PICKLE = b"\x80"
_LENGTH = 8
"""A safetensors file begins with the length of its header, in bytes."""
_LONGEST_HEADER = 100_000_000
_NAMES_SHOWN = 3


class Unreadable(Exception):
    """A file that is not weights, or damaged; the message says what it is, and fits behind 'cannot read:'."""


def kind_of(path: Path) -> Kind:
    """The format of a weight file; raises Unreadable with what else the file is, or where it is cut off."""
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise Unreadable(_of_system(path, error)) from None
    if not head:
        raise Unreadable("the file is empty (0 bytes)")
    if head.startswith(b"PK\x03\x04"):
        _check_archive(path)
        return "zip"
    if head[_LENGTH : _LENGTH + 1] == b"{" and int.from_bytes(head[:_LENGTH], "little") < _LONGEST_HEADER:
        _check_safetensors(path)
        return "safetensors"
    if head.startswith(_PICKLE):
        return "legacy"
    raise Unreadable(f"the file is {_name_of(head, path)}")


def _of_system(path: Path, error: OSError) -> str:
    if path.is_dir():
        return "it is a folder"
    return "there is no such file" if not path.exists() else f"{error.strerror or error}"


def _name_of(head: bytes, path: Path) -> str:
    """What a file that begins like this is."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the weights it stands for; fetch them with `git lfs pull`"
    if text.startswith(_HTML) or b"<html" in text:
        return "a web page (HTML), not the weights; the download led to a page instead"
    for magic, name in _OTHERS:
        if head.startswith(magic):
            return name
    if not any(head):
        return "filled with zeros; the download did not finish"
    if text.startswith(b"<"):
        return "XML, not the weights; the download led to an answer instead"
    if b"\0" not in head and _is_text(head):
        start = " ".join(head.decode(errors="replace").split())[:40]
        return f"{'JSON' if text.startswith((b'{', b'[')) else 'text'}: '{start}'"
    return f"neither safetensors nor a file of torch.save ({path.stat().st_size} bytes)"


def _is_text(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a letter of several bytes, cut by the end of `head`
    return True


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise Unreadable(f"the file is truncated or damaged ({path.stat().st_size} bytes)") from None
    if any(name.endswith("/constants.pkl") for name in names):
        raise Unreadable("the file is a TorchScript program; save the model's state_dict() instead")
    if not any(name.endswith("data.pkl") for name in names):
        inside = ", ".join(names[:_NAMES_SHOWN]) or "nothing"
        what = (
            "NumPy arrays (.npz)"
            if names and all(name.endswith(".npy") for name in names)
            else "a zip archive"
        )
        raise Unreadable(f"the file is {what} that holds {inside}, not one of torch.save")


def _check_safetensors(path: Path) -> None:
    """Raises Unreadable where the header is damaged, or announces more bytes than there are."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        header = file.read(length)
    if len(header) < length:
        raise Unreadable(f"the file is truncated: {size} bytes, its header alone has {length}")
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        announced = _LENGTH + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise Unreadable("the file is damaged: its safetensors header is not valid") from None
    if size < announced:
        raise Unreadable(f"the file is truncated: {size} of {announced} bytes")
