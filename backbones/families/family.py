"""The contract of a model family: everything the harness does differently from one architecture to another.

A family lives in one module of this folder as a class and its only instance, and has a line in
`backbones.families.registry`. Facts come without torch, which the methods import when they are called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from backbones.preprocessing.data_config import DataConfig

if TYPE_CHECKING:
    from timm.layers.patch_embed import PatchEmbed
    from torch import Tensor, nn

    from backbones.guidance.guidance import Guidance


class Architecture(Protocol):
    """The part of a `BackboneSpec` from which a family builds a model."""

    @property
    def name(self) -> str:
        """The backbone's name, for messages."""

    @property
    def timm_name(self) -> str:
        """timm architecture, empty where the family builds the model itself."""

    @property
    def data(self) -> DataConfig:
        """Preprocessing, of which the input size enters the model."""

    @property
    def num_classes(self) -> int:
        """Number of classes of the head."""

    @property
    def model_settings(self) -> Mapping[str, Any]:
        """Keyword arguments of the constructor."""


class Family(ABC):
    """One architecture: how its models are built and loaded, and where things are in them."""

    name: ClassVar[str]
    """What specifications, methods and engines call the family."""
    detects: ClassVar[bool] = False
    """True for detectors, whose outputs are boxes; classifiers give logits (B, classes)."""
    windowed: ClassVar[bool] = False
    """True where attention stays within windows: Swin, also as the backbone of a detector."""
    head_prefixes: ClassVar[tuple[str, ...]]
    """How the names of modules begin that belong to neck and heads, or whose output only these read."""

    @abstractmethod
    def build(self, spec: Architecture) -> nn.Module:
        """The untrained model with explicit attention (`backbones.families.explicit`)."""

    @abstractmethod
    def guidance(self, num_classes: int) -> Guidance:
        """Targets for images, and losses on what a model of so many classes says of them."""

    @abstractmethod
    def quantization_points(self, model: nn.Module) -> list[str]:
        """Names of the modules whose output PSAQ-ViT's code quantizes; the input image comes on top.

        In a detector also every layer of neck and heads, but for a mask head's transposed convolution.
        """

    def convert_weights(self, state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """A published state dict under the names of `model`; one that has these names comes back as it is.

        Raises ValueError when weights are missing or have no place.
        """
        return state

    def official_weights(self, spec: Architecture) -> str:
        """The file to look for when no hub has the weights, as 'FILE of REPOSITORY'; empty where unknown."""
        return ""

    def patch_grid(self, model: nn.Module) -> tuple[int, int]:
        """(rows, columns) of the patches that an image is cut into; in Swin those of the first stage."""
        rows, columns = cast("PatchEmbed", model.patch_embed).grid_size
        return rows, columns

    def prefix_tokens(self, model: nn.Module) -> int:
        """Number of tokens before the patch tokens, 0 where there are none."""
        return 0
