"""Reads a file of weights, or all shards that an index names, by content and not by suffix.

    reading.py -> kinds.py     what the file is
               -> pickles.py   files of torch.save

Large models are stored in shards: `model.safetensors.index.json` maps each tensor's name to the file beside
it that holds it. Knows nothing about models.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath

from backbones.checkpoints.kinds import Unreadable, kind_of
from backbones.checkpoints.pickles import load_inert

_INDEX_SUFFIX = ".json"


def read_checkpoint(path: Path) -> object:
    """What a file or an index holds, on the CPU; tensors of most files are read from disk only when used.

    Raises Unreadable with the reason.
    """
    return _read_shards(path) if path.suffix == _INDEX_SUFFIX else _read_file(path)


def files_of(path: Path) -> list[Path]:
    """The files that hold a checkpoint: an index and its shards in order of name, or the one file.

    Raises Unreadable where an index is not valid.
    """
    if path.suffix != _INDEX_SUFFIX:
        return [path]
    return [path, *(path.parent / name for name in sorted(set(_weight_map(path).values())))]


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
