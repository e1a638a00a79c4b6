"""Finds a backbone's weights, hashes them and builds the frozen, explicit teacher.

Order of places: a given file, the weights shipped with the project, a folder of weights, the hub.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.base import Backbone, BackboneSpec
from backbones.registry import family_of, get_spec

if TYPE_CHECKING:
    from torch import Tensor, nn

_SHIPPED = Path(__file__).parent / "digits" / "weights"
_PRETRAINED = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a folder that transformers or the hub made."""


class WeightsError(Exception):
    """Weights that are missing, unreadable or of another architecture."""


def find_weights(
    spec: BackboneSpec, given: Path | None = None, folder: Path | None = None, *, download: bool = True
) -> Path:
    """Path of the weight file of `spec`; downloads through the hub when nothing is local.

    `given` is a file, or a folder as transformers saves one (`model.safetensors` or `pytorch_model.bin`);
    `folder` may hold `NAME.safetensors` or `NAME.pth`. Raises WeightsError when the file is not there, or
    when the hub cannot be reached; without `download`, when an earlier download has not left the file here.
    """
    if given is not None:
        candidates = [given, *(given / name for name in _PRETRAINED)]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise WeightsError(f"no weights for {spec.name} at {given}: give --weights {spec.name}=FILE")
        return found
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
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def load_backbone(name: str, weights: Path, device: str = "cpu") -> Backbone:
    """The frozen teacher `name` in evaluation mode with the weights of that file, on `device`.

    Raises WeightsError when the file cannot be read or does not fit the architecture, ValueError when there
    is no backbone of that name.
    """
    spec = get_spec(name)
    model = build_model(spec)
    state = _read_state(spec, weights)
    try:
        model.load_state_dict(family_of(spec).convert_weights(state, model), strict=True)
    except (RuntimeError, ValueError) as error:
        first_lines = " ".join(str(error).split())[:300]
        architecture = spec.timm_name or spec.family
        raise WeightsError(f"{weights} does not fit {name} ({architecture}): {first_lines}") from None
    return Backbone(spec, model.to(device).eval().requires_grad_(False), sha256_of_file(weights))


def build_model(spec: BackboneSpec) -> nn.Module:
    """The untrained explicit model of a specification; torch's global random state is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return family_of(spec).build(spec)


def _read_state(spec: BackboneSpec, path: Path) -> dict[str, Tensor]:
    import safetensors.torch
    import torch

    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise nearly anything on a damaged file
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"cannot read the weights of {spec.name} from {path}: {reason}") from None
    state = state.get("model", state.get("state_dict", state)) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds no weights of {spec.name}, but a {type(state).__name__}")
    return state


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
