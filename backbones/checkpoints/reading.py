"""Reads a file of weights, or all shards that an index names, by content and not by suffix.

    reading.py -> kinds.py     what the file is
               -> pickles.py   files of torch.save

Large models are stored in shards: `model.safetensors.index.json` maps each tensor's name to the file beside
it that holds it. Where the index is lost, the names of the shards say how many there are, and any of them
stands for all. Knows nothing about models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from backbones.checkpoints.kinds import Unreadable, kind_of
from backbones.checkpoints.pickles import load_inert

_INDEX_SUFFIX = ".json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?P<suffix>\.\w+)")
"""`model-00001-of-00003.safetensors`."""
_SHOWN = 3
"""Files that a message lists."""


def read_checkpoint(path: Path) -> object:
    """What a file, an index or the shards beside one hold, on the CPU; most tensors are read when used.

    Raises Unreadable with the reason.
    """
    if path.suffix == _INDEX_SUFFIX:
        return _read_shards(path)
    shards = _shards_of(path)
    return _merged(shards) if len(shards) > 1 else _read_file(path)


def files_of(path: Path) -> list[Path]:
    """The files that hold a checkpoint: an index and its shards, shards without one, or the one file.

    Shards come in order of name. Raises Unreadable where an index is not valid or a shard is missing.
    """
    if path.suffix != _INDEX_SUFFIX:
        return _shards_of(path)
    return [path, *(path.parent / name for name in sorted(set(_weight_map(path).values())))]


def first_shards(folder: Path) -> list[Path]:
    """The first file of every set of shards in a folder, complete or not."""
    sets: dict[tuple[str, str, str], Path] = {}
    for file in sorted(folder.iterdir()):
        if (match := _SHARD.fullmatch(file.name)) and int(match["count"]) > 1:
            sets.setdefault((match["stem"], match["count"], match["suffix"]), file)
    return list(sets.values())


def _shards_of(path: Path) -> list[Path]:
    """All shards of the set that the file belongs to, or the file alone; raises Unreadable."""
    match = _SHARD.fullmatch(path.name)
    if match is None or int(match["count"]) < 2:
        return [path]
    count, digits = int(match["count"]), len(match["number"])
    names = [
        f"{match['stem']}-{number:0{digits}}-of-{match['count']}{match['suffix']}"
        for number in range(1, count + 1)
    ]
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        listed = ", ".join(missing[:_SHOWN]) + (
            f" and {len(missing) - _SHOWN} more" * (len(missing) > _SHOWN)
        )
        raise Unreadable(f"of its {count} shards {len(missing)} are missing in {path.parent}: {listed}")
    return [path.parent / name for name in names]


def _merged(shards: Sequence[Path]) -> dict[str, object]:
    """What shards without an index hold together; raises Unreadable where two hold the same."""
    merged: dict[str, object] = {}
    for shard in shards:
        content = _read_shard(shard)
        for name in content:
            if name in merged:
                raise Unreadable(f"two of its shards hold {name}, the second is {shard.name}")
        merged |= content
    return merged


def _read_file(path: Path) -> object:
    kind = kind_of(path)
    if kind != "safetensors":
        return load_inert(path, is_zip=kind == "zip")
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise Unreadable(f"the file is damaged: {' '.join(str(error).split())[:160]}") from None


def _read_shards(index: Path) -> dict[str, object]:
    weight_map = _weight_map(index)
    shards = {name: _read_shard(index.parent / name) for name in sorted(set(weight_map.values()))}
    for tensor, shard in weight_map.items():
        if tensor not in shards[shard]:
            raise Unreadable(f"its shard {shard} does not hold {tensor}")
    return {tensor: shards[shard][tensor] for tensor, shard in weight_map.items()}


def _read_shard(path: Path) -> dict[str, object]:
    try:
        content = _read_file(path)
    except Unreadable as error:
        raise Unreadable(f"its shard {path.name}: {error}") from None
    if not isinstance(content, dict):
        raise Unreadable(f"its shard {path.name} holds a {type(content).__name__}")
    return content


def _weight_map(index: Path) -> dict[str, str]:
    """Name of tensor -> name of the file beside the index; raises Unreadable."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Unreadable("there is no such file") from None
    except (ValueError, OSError, RecursionError):
        kind_of(index)  # a pointer, a page and an empty file are named
        raise Unreadable("the file is no valid JSON") from None
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise Unreadable("the file is JSON without the weight_map of an index of shards")
    for name in weight_map.values():
        if not isinstance(name, str) or not _stays_inside(name):
            raise Unreadable(f"the index names a shard outside its folder: {name}")
    return weight_map


def _stays_inside(name: str) -> bool:
    """Whether a name leads to a file in the folder or below; links are followed, since hubs store them so."""
    windows = PureWindowsPath(name)
    parts = (*PurePosixPath(name).parts, *windows.parts)
    return bool(parts) and not windows.anchor and not name.startswith("/") and ".." not in parts
