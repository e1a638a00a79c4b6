"""YOLOS (Fang et al., NeurIPS 2021): a plain ViT whose detection tokens name objects, every step a module.

The computation is that of transformers' YolosForObjectDetection, with two differences in form: q, k and v
are one layer, and the tokens stand as [CLS, detection, patches], so that what skips the prefix sees patches
alone. Position embeddings keep the checkpoint's order, [CLS, patches, detection]. Knows nothing about files.

    patch_embed            (proj)
    tokens                 after the concat of CLS and detection tokens
    position               the position embedding, interpolated to the image
    embedded               their sum
    blocks.*               as in `backbones.families.explicit`
    mid_position.*, mid_embedded.*   between blocks, where the model has mid-layer position embeddings
    norm                   of the detection tokens alone
    class_head, box_head
"""

from __future__ import annotations

import re
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from backbones.families.explicit import Add, expose_attention
from backbones.guidance.outputs import Detections, QueryOutputs, best_per_query

_NOT_IN_COCO = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
COCO_CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in _NOT_IN_COCO)
"""The 80 category ids that COCO uses, sorted; label i of this project is the i-th."""
_COCO_OUTPUTS = 92
"""Outputs of the published class head: category ids 0 to 90, then 'no object'."""
_EPSILON = 1e-12


class Head(nn.Module):
    """Three linear layers with ReLU between them, (..., C) -> (..., outputs)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)])
        self.layers.append(nn.Linear(width, outputs))

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the answers."""
        return cast("nn.Linear", self.layers[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the last layer for tokens (..., C)."""
        first, second, last = self.layers
        outputs: Tensor = last(F.relu(second(F.relu(first(x)))))
        return outputs


class ExplicitYolos(nn.Module):
    """A ViT detector with explicit attention; images may have any sides that the patch divides."""

    def __init__(
        self,
        *,
        input_size: tuple[int, int, int],
        position_size: tuple[int, int],
        patch_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        det_tokens: int,
        mid_positions: bool,
        num_classes: int,
    ) -> None:
        """`input_size` gives the patch grid, `position_size` is the position embedding's, in pixels."""
        super().__init__()
        self.num_classes = num_classes
        self.num_prefix_tokens = 1 + det_tokens
        self.position_grid = (position_size[0] // patch_size, position_size[1] // patch_size)
        self.patch_embed = PatchEmbed(
            input_size[1:], patch_size, input_size[0], embed_dim, strict_img_size=False
        )
        count = self.num_prefix_tokens + self.position_grid[0] * self.position_grid[1]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.det_tokens = nn.Parameter(torch.zeros(1, det_tokens, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, count, embed_dim))
        between = depth - 1 if mid_positions else 0
        self.mid_pos_embed = nn.Parameter(torch.zeros(between, 1, count, embed_dim)) if between else None
        self.tokens = nn.Identity()
        self.position = nn.Identity()
        self.embedded = Add()
        self.blocks = nn.ModuleList(
            [Block(embed_dim, num_heads, qkv_bias=True, norm_layer=nn.LayerNorm) for _ in range(depth)]
        )
        self.mid_position = nn.ModuleList([nn.Identity() for _ in range(between)])
        self.mid_embedded = nn.ModuleList([Add() for _ in range(between)])
        self.norm = nn.LayerNorm(embed_dim)
        self.class_head = Head(embed_dim, num_classes + 1)
        self.box_head = Head(embed_dim, 4)
        self._initialize()
        expose_attention(self)

    def forward(self, images: Tensor) -> QueryOutputs:
        """Normalized images (B, C, H, W) -> classes and boxes of every detection token."""
        x = self.embed(images)
        grid = self._grid(images)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if self.mid_pos_embed is not None and index < len(self.mid_embedded):
                position = self.mid_position[index](self._positions(self.mid_pos_embed[index], grid))
                x = self.mid_embedded[index](x, position)
        return self.answers(x)

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> the first block's input, (B, 1 + detection tokens + patches, D)."""
        patches = self.patch_embed(images)
        prefix = torch.cat([self.cls_token, self.det_tokens], dim=1).expand(len(images), -1, -1)
        tokens = self.tokens(torch.cat([prefix, patches], dim=1))
        position = self.position(self._positions(self.pos_embed, self._grid(images)))
        embedded: Tensor = self.embedded(tokens, position)
        return embedded

    def answers(self, x: Tensor) -> QueryOutputs:
        """The heads' reading of a block's output (B, N, D)."""
        queries = self.norm(x[:, 1 : self.num_prefix_tokens])
        return QueryOutputs(self.class_head(queries), self.box_head(queries).sigmoid())

    def detections(self, outputs: QueryOutputs) -> list[Detections]:
        """One detection per detection token and image, best score first."""
        return best_per_query(outputs)

    def _grid(self, images: Tensor) -> tuple[int, int]:
        rows, columns = self.patch_embed.patch_size
        return images.shape[-2] // rows, images.shape[-1] // columns

    def _positions(self, embedding: Tensor, grid: tuple[int, int]) -> Tensor:
        """(1, [CLS, patches, detection], D) -> (1, [CLS, detection, patches of the grid], D)."""
        detection = self.num_prefix_tokens - 1
        parts = [1, embedding.shape[1] - 1 - detection, detection]
        cls, patches, det = torch.split(embedding, parts, dim=1)
        if grid != self.position_grid:
            plane = torch.unflatten(patches.transpose(1, 2), 2, self.position_grid)
            plane = F.interpolate(plane, size=grid, mode="bicubic", align_corners=False)
            patches = plane.flatten(2).transpose(1, 2)
        return torch.cat([cls, det, patches], dim=1)

    def _initialize(self) -> None:
        """Normal weights of deviation 0.02, as the authors start; LayerNorm's epsilon is transformers'."""
        embeddings = [self.cls_token, self.det_tokens, self.pos_embed, self.mid_pos_embed]
        for embedding in embeddings:
            if embedding is not None:
                nn.init.trunc_normal_(embedding, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.eps = _EPSILON


_RENAMED = (
    (r"^vit\.embeddings\.cls_token$", "cls_token"),
    (r"^vit\.embeddings\.detection_tokens$", "det_tokens"),
    (r"^vit\.embeddings\.position_embeddings$", "pos_embed"),
    (r"^vit\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^vit\.encoder\.(interpolation\.)?mid_position_embeddings$", "mid_pos_embed"),
    (r"^vit\.layernorm\.", "norm."),
    (r"^vit\.encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"^vit\.encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"^vit\.encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"^vit\.encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
    (r"^vit\.encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.mlp.fc2."),
    (r"^class_labels_classifier\.", "class_head."),
    (r"^bbox_predictor\.", "box_head."),
)
"""transformers' names of weights and ours; older releases keep the mid-layer positions one level higher."""
_QUERY = re.compile(r"^vit\.encoder\.layer\.(\d+)\.attention\.attention\.query\.(weight|bias)$")


def from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename transformers' YOLOS weights, join q, k and v, and keep COCO's 80 classes of the head.

    The ids without a category never were a target, so that leaving them out hardly moves the softmax. Weights
    that do not come from transformers are returned as they are.
    """
    if not any(key.startswith("vit.") for key in state):
        return state
    found = {}
    for key, value in state.items():
        if query := _QUERY.match(key):
            parts = [
                state.get(key.replace(".query.", f".{part}."), value) for part in ("query", "key", "value")
            ]
            found[f"blocks.{query[1]}.attn.qkv.{query[2]}"] = torch.cat(parts)
        elif ".attention.attention." not in key:
            found[_renamed(key)] = value
    return _coco_classes(found)


def _renamed(key: str) -> str:
    for pattern, name in _RENAMED:
        if re.match(pattern, key):
            return re.sub(pattern, name, key)
    return key


def _coco_classes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows of the published 92 outputs in the order of labels 0 to 79 and 'no object'."""
    last = [key for key in state if key.startswith("class_head.layers.2.")]
    rows = torch.tensor([*COCO_CATEGORY_IDS, _COCO_OUTPUTS - 1])
    picked = {key: state[key][rows] for key in last if len(state[key]) == _COCO_OUTPUTS}
    return {**state, **picked}
