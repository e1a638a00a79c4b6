"""Finds a backbone's weights, hashes them and builds the frozen, explicit teacher.

Order of places: a given file, the weights shipped with the project, a folder of weights, the hub.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.base import Backbone, BackboneSpec
from backbones.names import suggestion
from backbones.specs import SPECS

if TYPE_CHECKING:
    from torch import Tensor, nn

_SHIPPED = Path(__file__).parent / "digits" / "weights"
_PRETRAINED = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a folder that transformers or the hub made."""


class WeightsError(Exception):
    """Weights that are missing, unreadable or of another architecture."""


def find_weights(spec: BackboneSpec, given: Path | None = None, folder: Path | None = None) -> Path:
    """Path of the weight file of `spec`; downloads through the hub when nothing is local.

    `given` is a file, or a folder as transformers saves one (`model.safetensors` or `pytorch_model.bin`);
    `folder` may hold `NAME.safetensors` or `NAME.pth`. Raises WeightsError when the file is not there, or
    when the hub cannot be reached.
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
    return _download(spec)


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
    if name not in SPECS:
        raise ValueError(f"unknown backbone '{name}'{suggestion(name, SPECS)}")
    spec = SPECS[name]
    model = build_model(spec)
    state = _read_state(spec, weights)
    try:
        if spec.family == "mask_rcnn":
            from backbones.families.mmdet_keys import from_official

            state = from_official(state, model.state_dict())
        model.load_state_dict(state, strict=True)
    except (RuntimeError, ValueError) as error:
        first_lines = " ".join(str(error).split())[:300]
        architecture = spec.timm_name or spec.family
        raise WeightsError(f"{weights} does not fit {name} ({architecture}): {first_lines}") from None
    return Backbone(spec, model.to(device).eval().requires_grad_(False), sha256_of_file(weights))


def build_model(spec: BackboneSpec) -> nn.Module:
    """The untrained explicit model of a specification; torch's global random state is left as it was."""
    import torch

    builders = {"yolos": _build_yolos, "mask_rcnn": _build_mask_rcnn}
    build = builders.get(spec.family, _build_timm)
    with torch.random.fork_rng(devices=[]):
        return build(spec)


def _build_timm(spec: BackboneSpec) -> nn.Module:
    import timm

    from backbones.families.explicit import make_explicit

    settings = dict(spec.model_settings)
    if spec.family == "swin":
        settings["drop_path_rate"] = 0.0
    return make_explicit(timm.create_model(spec.timm_name, pretrained=False, **settings))


def _build_yolos(spec: BackboneSpec) -> nn.Module:
    from backbones.families.yolos import ExplicitYolos

    return ExplicitYolos(input_size=spec.data.input_size, num_classes=spec.num_classes, **spec.model_settings)


def _build_mask_rcnn(spec: BackboneSpec) -> nn.Module:
    from backbones.families.mask_rcnn import build_mask_rcnn

    return build_mask_rcnn(spec)


def _read_state(spec: BackboneSpec, path: Path) -> dict[str, Tensor]:
    import safetensors.torch
    import torch

    try:
        if path.suffix == ".safetensors":
            return _in_our_layout(spec, safetensors.torch.load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise nearly anything on a damaged file
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"cannot read the weights of {spec.name} from {path}: {reason}") from None
    state = state.get("model", state.get("state_dict", state)) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds no weights of {spec.name}, but a {type(state).__name__}")
    return _in_our_layout(spec, state)


def _in_our_layout(spec: BackboneSpec, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of `build_model`, whoever published the file."""
    if spec.family == "yolos":
        from backbones.families.yolos import from_transformers

        return from_transformers(state)
    return _in_timm_layout(state)


def _in_timm_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Swin's authors store two buffers, number downsampling one stage earlier and name the head flat."""
    state = {k: v for k, v in state.items() if not k.endswith(("relative_position_index", "attn_mask"))}
    if "layers.0.downsample.reduction.weight" not in state:
        return state
    return {
        re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", key).replace(
            "head.", "head.fc."
        ): value
        for key, value in state.items()
    }


def _download(spec: BackboneSpec) -> Path:
    if spec.family == "mask_rcnn":
        from backbones.families.mmdet_keys import official_file

        raise WeightsError(
            f"no weights for {spec.name}: no hub has them; give --weights {spec.name}=FILE with "
            f"{official_file(spec)} of SwinTransformer/Swin-Transformer-Object-Detection"
        )
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(spec.hub_repository, "model.safetensors"))
    except Exception as error:  # the hub raises many kinds; the user needs one sentence
        raise WeightsError(
            f"no weights for {spec.name}: the hub could not be reached ({type(error).__name__}); "
            f"give --weights {spec.name}=FILE with the weights of {spec.hub_repository}"
        ) from None
