"""Where a two-stage detector looks: anchors, box refinements and pooled regions, as mmdet 2 defines them.

torchvision has all of these, each with a difference that a trained model notices; it is named where its
version is replaced. Boxes here are left, top, right, bottom in pixels of the canvas. Knows no layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import roi_align

STRIDES = (4, 8, 16, 32, 64)
"""Pixels per cell of the pyramid's levels, finest first."""
RATIOS = (0.5, 1.0, 2.0)
"""Height over width of the anchors of every cell."""
_CELLS_PER_ANCHOR = 8
"""Side of the square anchor over its level's stride."""
_FINEST_SIDE = 56
"""Boxes of this geometric mean side, and of less than twice as much, belong to the finest level."""


def level_anchors(rows: int, columns: int, stride: int, device: torch.device) -> Tensor:
    """Anchors of one level, (rows * columns * 3, 4): cells row by row, every cell with all ratios.

    They are centred on the cells' upper left corners. torchvision's generator rounds the sides to pixels
    and derives the stride from the canvas, which fails where the coarsest level is rounded up.
    """
    ratios = torch.tensor(RATIOS, device=device).sqrt()
    halves = _CELLS_PER_ANCHOR * stride / 2 * torch.stack([1 / ratios, ratios], dim=-1)
    cell = torch.cat([-halves, halves], dim=-1)
    y, x = torch.meshgrid(
        stride * torch.arange(rows, device=device),
        stride * torch.arange(columns, device=device),
        indexing="ij",
    )
    return (torch.stack([x, y, x, y], dim=-1)[:, :, None] + cell).reshape(-1, 4)


class ClampedBoxCoder(BoxCoder):  # type: ignore[misc]
    """torchvision's box coder, which only limits how much a box may grow, limiting its shrinking as well."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Apply refinements (n, k * 4) to boxes (n, 4): (n, k * 4)."""
        unlimited = -torch.inf
        smallest = [-self.bbox_xform_clip * weight for weight in self.weights[2:]]
        lowest = rel_codes.new_tensor([unlimited, unlimited, *smallest]).repeat(rel_codes.shape[1] // 4)
        decoded: Tensor = super().decode_single(torch.maximum(rel_codes, lowest), boxes)
        return decoded


def pyramid_level(boxes: Tensor) -> Tensor:
    """Index of the level, 0 to 3, from which each of the boxes (n, 4) is pooled: (n,) int64.

    torchvision's mapper adds the same epsilon after the logarithm instead of before it.
    """
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    level = ((width * height).sqrt() / _FINEST_SIDE + 1e-6).log2().floor()
    return level.clamp(0, 3).long()


def pooled(levels: Sequence[Tensor], boxes: Sequence[Tensor], size: int) -> Tensor:
    """What the pyramid shows inside the boxes of every image, (n, C, size, size), image-major.

    Aligned to half pixels, as torchvision's multi-scale pooling is not, with as many samples per bin as the
    box covers cells.
    """
    images = torch.cat([box.new_full((len(box), 1), index) for index, box in enumerate(boxes)])
    regions = torch.cat([images, torch.cat(list(boxes))], dim=1)
    chosen = pyramid_level(regions[:, 1:])
    result = levels[0].new_zeros(len(regions), levels[0].shape[1], size, size)
    for index, (level, stride) in enumerate(zip(levels[:4], STRIDES, strict=False)):
        here = chosen == index
        result[here] = roi_align(level, regions[here], size, 1 / stride, sampling_ratio=0, aligned=True)
    return result
