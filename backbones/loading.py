"""Finds a backbone's weights, hashes them and builds the frozen, explicit teacher.

Order of places: a given file, the weights shipped with the project, a folder of weights, the hub. A path of
weights is a file, an index of shards, a shard without index, or any of them with the set to take from it:
`FILE::model_ema`. What files hold is the matter of `backbones.checkpoints`.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from backbones.base import Backbone, BackboneSpec
from backbones.checkpoints.fitting import Fitting
from backbones.checkpoints.kinds import Unreadable
from backbones.checkpoints.reading import files_of, first_shards, read_checkpoint
from backbones.checkpoints.unwrapping import WeightSet, weight_sets
from backbones.registry import family_of, get_spec

if TYPE_CHECKING:
    from torch import nn

_SHIPPED = Path(__file__).parent / "digits" / "weights"
_PRETRAINED = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
"""Names of the weights in a folder that transformers or the hub made, whole or in shards."""
_CHOICE = "::"
"""What stands between a file and the name of the set to take from it."""
_SHOWN = 3
"""Files of a folder that a message lists."""


class WeightsError(Exception):
    """Weights that are missing, unreadable or of another architecture."""


def find_weights(
    spec: BackboneSpec, given: Path | None = None, folder: Path | None = None, *, download: bool = True
) -> Path:
    """Path of the weights of `spec`; downloads through the hub when nothing is local.

    `given` is a file, or a folder as transformers saves one (`model.safetensors`, `pytorch_model.bin`, an
    index of shards, or one set of shards without it), with `::NAME` behind it to choose a set; `folder` may
    hold `NAME.safetensors` or `NAME.pth`. Raises WeightsError when the file is not there, or when the hub
    cannot be reached; without `download`, when an earlier download has not left the file here.
    """
    if given is not None:
        return _given(spec, given)
    if spec.shipped_weights is not None:
        return _SHIPPED / spec.shipped_weights
    for suffix in (".safetensors", ".pth"):
        if folder is not None and (folder / f"{spec.name}{suffix}").is_file():
            return folder / f"{spec.name}{suffix}"
    if not spec.hub_repository:
        raise WeightsError(_without_hub(spec))
    return _download(spec) if download else _downloaded(spec)


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_weights(name: str, weights: Path) -> str:
    """Hexadecimal SHA-256 of a path of weights: of the file, or of the list of hashes of index and shards.

    The name of a chosen set enters it, unless the backbone `name` would get that set without a choice. Raises
    WeightsError where a file is not there.
    """
    path, choice = _split(weights)
    if choice and _is_default(get_spec(name), weights):
        choice = ""
    try:
        files = files_of(path)
        if len(files) == 1 and not choice:
            return sha256_of_file(path)
        lines = [f"{sha256_of_file(file)}  {file.name}" for file in files]
    except (OSError, Unreadable) as error:
        raise WeightsError(f"cannot read the weights at {path}: {error}") from None
    return hashlib.sha256("\n".join([*lines, choice]).encode()).hexdigest()


def check_weights(name: str, weights: Path) -> str:
    """Read names and shapes of the weights of the backbone `name`, and say which part of the file is taken.

    The text is empty where the file holds the weights plainly and nothing else. Raises WeightsError when the
    weights cannot be read or do not fit, ValueError when there is no backbone of that name.
    """
    return _choose(get_spec(name), weights).note


def load_backbone(name: str, weights: Path, device: str = "cpu") -> Backbone:
    """The frozen teacher `name` in evaluation mode with the weights at that path, on `device`.

    Raises WeightsError when the weights cannot be read or do not fit the architecture, ValueError when there
    is no backbone of that name.
    """
    spec = get_spec(name)
    chosen = _choose(spec, weights).weights
    model = build_model(spec)
    model.load_state_dict(family_of(spec).convert_weights(dict(chosen.tensors), model), strict=True)
    return Backbone(spec, model.to(device).eval().requires_grad_(False), sha256_of_weights(name, weights))


def build_model(spec: BackboneSpec) -> nn.Module:
    """The untrained explicit model of a specification; torch's global random state is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return family_of(spec).build(spec)


class _Choice(NamedTuple):
    """The set of weights that is taken from a file."""

    weights: WeightSet
    note: str


def _choose(spec: BackboneSpec, weights: Path) -> _Choice:
    path, wanted = _split(weights)
    try:
        content = read_checkpoint(path)
    except Unreadable as error:
        raise WeightsError(f"cannot read the weights of {spec.name} from {path}: {error}") from None
    fitting = Fitting(spec)
    sets = weight_sets(content, fitting, fitting.size)
    if not sets:
        raise WeightsError(f"{path} holds no weights of {spec.name}, but {_content_of(content)}")
    asked = [one for one in sets if one.is_below(wanted)] if wanted else sets
    if not asked:
        places = ", ".join(one.place or "weights without a name" for one in sets)
        raise WeightsError(f"{path} holds no '{wanted}' for {spec.name}, but {places}")
    fits = [one for one in asked if not one.verdict.fault]
    if not fits:
        nearest = max(asked, key=lambda one: one.verdict.matching)
        at = f"'{nearest.place}' of {path}" if nearest.place else str(path)
        architecture = spec.timm_name or spec.family
        raise WeightsError(f"{at} does not fit {spec.name} ({architecture}): {nearest.verdict.fault}")
    if lost := _not_finite(fits[0]):
        raise WeightsError(f"the weights of {spec.name} in {path} are damaged: {lost} holds NaN or infinity")
    others = [one for one in sets if not one.verdict.fault and one is not fits[0]]
    return _Choice(fits[0], _note(spec, path, fits[0], others))


def _not_finite(weights: WeightSet) -> str:
    """Name of the first tensor that a training which diverged has spoilt; empty where there is none.

    Minus infinity alone is no fault: attention masks that are stored beside weights hold it.
    """
    for name, value in weights.tensors.items():
        if value.is_floating_point() and not (value.float() < math.inf).all():
            return name
    return ""


def _is_default(spec: BackboneSpec, weights: Path) -> bool:
    """Whether a path with a choice gives the set that the file gives without one."""
    try:
        chosen, default = _choose(spec, weights), _choose(spec, _split(weights)[0])
    except WeightsError:  # said where the weights are checked
        return False
    return chosen.weights.place == default.weights.place


def _note(spec: BackboneSpec, path: Path, taken: WeightSet, others: list[WeightSet]) -> str:
    """What was taken from a file, where it could have been something else."""
    notes = []
    if taken.place:
        notes.append(f"'{taken.place}' of {path} is taken")
    if taken.left_out:
        notes.append(f"{taken.left_out} other tensors beside it are left out")
    if others:
        places = " and ".join(f"'{one.place}'" for one in others)
        notes.append(
            f"{path.name} also holds {places}: choose with --weights {spec.name}={path}::{others[0].place}"
        )
    kinds = {
        str(one.dtype).removeprefix("torch.") for one in taken.tensors.values() if one.is_floating_point()
    }
    if narrow := sorted(kinds - {"float32"}):
        notes.append(f"{', '.join(narrow)} is cast to float32")
    return f"weights of {spec.name}: {'; '.join(notes)}" if notes else ""


def _content_of(content: object) -> str:
    if isinstance(content, dict) and content:
        return f"the entries {', '.join(map(str, list(content)[:_SHOWN]))} without tensors"
    return f"a {type(content).__name__}"


def _split(weights: Path) -> tuple[Path, str]:
    """Path and name of the set to take from it, empty where none is named."""
    path, separator, choice = str(weights).rpartition(_CHOICE)
    return (Path(path), choice) if separator and not weights.exists() else (weights, "")


def _given(spec: BackboneSpec, given: Path) -> Path:
    path, choice = _split(given)
    candidates = [path, *(path / name for name in _PRETRAINED)]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None and path.is_dir():
        found = _shards_in(spec, path)
    if found is None:
        raise WeightsError(
            f"no weights for {spec.name} at {path}{_inside(path)}: give --weights {spec.name}=FILE"
        )
    return Path(f"{found}{_CHOICE}{choice}") if choice else found


def _shards_in(spec: BackboneSpec, folder: Path) -> Path | None:
    """The first of the shards in a folder without an index; raises WeightsError where there are two sets."""
    first = first_shards(folder)
    if len(first) > 1:
        names = " and ".join(file.name for file in first[:_SHOWN])
        raise WeightsError(
            f"{folder} holds several sets of shards and no index ({names}): give one file of the set, as in "
            f"--weights {spec.name}={first[0]}"
        )
    return first[0] if first else None


def _inside(folder: Path) -> str:
    """What a folder holds in place of weights under a usual name."""
    if not folder.is_dir():
        return ""
    names = sorted(path.name for path in folder.iterdir())
    listed = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f", a folder without {', '.join(_PRETRAINED)} (it holds {listed or 'nothing'})"


def _without_hub(spec: BackboneSpec) -> str:
    official = family_of(spec).official_weights(spec)
    hint = f" with {official}" if official else ""
    return f"no weights for {spec.name}: no hub has them; give --weights {spec.name}=FILE{hint}"


def _downloaded(spec: BackboneSpec) -> Path:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(spec.hub_repository, _PRETRAINED[0])
    if not isinstance(found, str):
        raise WeightsError(
            f"no weights for {spec.name} on this machine; give --weights {spec.name}=FILE "
            f"with the weights of {spec.hub_repository}"
        )
    return Path(found)


def _download(spec: BackboneSpec) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(spec.hub_repository, _PRETRAINED[0]))
    except Exception as error:  # the hub raises many kinds; the user needs one sentence
        raise WeightsError(
            f"no weights for {spec.name}: the hub could not be reached ({type(error).__name__}); "
            f"give --weights {spec.name}=FILE with the weights of {spec.hub_repository}"
        ) from None
