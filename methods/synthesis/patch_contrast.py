"""Patch contrast: a patch should agree with some of its neighbours and differ from the others. CLAMP-style.

Also puts attention outputs back where they belong on the image, so that neighbours are known: ViT's tokens on
their grid, Swin's windows in the map that they were cut from.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.base import Backbone

_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""(down, right) to half of the eight neighbours; the other half looks back along the same pairs."""


def patch_contrast_loss(maps: Tensor, *, positives: int, temperature: float) -> Tensor:
    """Mean over patches of -log of the share that the most alike neighbours have in exp(cosine / t), in nats.

    `maps`: (B, h, w, C) features. The neighbourhood is 3 x 3 without the centre, and smaller at the rim;
    its `positives` highest cosines are the positives, chosen without gradient. Where it has no more than
    these, the patch adds 0. Needs at least two patches.
    """
    scores = neighbour_cosines(maps) / temperature
    chosen = scores.detach().topk(positives, dim=1).indices
    return (scores.logsumexp(dim=1) - scores.gather(1, chosen).logsumexp(dim=1)).mean()


def neighbour_cosines(maps: Tensor) -> Tensor:
    """Cosine similarity of every patch of (B, h, w, C) with its eight neighbours: (B, 8, h, w).

    -inf where there is no neighbour. Each pair is multiplied once.
    """
    unit = F.normalize(maps, dim=-1)
    height, width = unit.shape[1:3]
    cosines = []
    for down, right in _DIRECTIONS:
        rows, left, end = height - down, max(0, -right), width - max(0, right)
        one = unit[:, :rows, left:end]
        other = unit[:, down:, left + right : end + right]
        products = (one * other).sum(dim=-1)
        sides = (left, width - end)
        cosines.append(F.pad(products, (*sides, 0, down), value=-torch.inf))
        cosines.append(F.pad(products, (*sides[::-1], down, 0), value=-torch.inf))
    return torch.stack(cosines, dim=1)


def patch_maps(teacher: Backbone, outputs: list[Tensor]) -> list[Tensor]:
    """Each layer's attention outputs, heads joined, as a map (B, h, w, C) in the image's order.

    `outputs` as `AttentionTaps` collects them from the teacher. Swin's windows are put together and
    its cyclic shift is undone. Raises ValueError for a Swin whose windows do not divide the map.
    """
    from backbones.families.explicit import ExplicitSwinBlock

    joined = [tensor[:, :, teacher.prefix_tokens :].transpose(1, 2).flatten(2) for tensor in outputs]
    if not teacher.is_windowed:
        return [torch.unflatten(tokens, 1, teacher.patch_grid) for tokens in joined]
    blocks = [module for module in teacher.model.modules() if isinstance(module, ExplicitSwinBlock)]
    return [_put_together(windows, block) for windows, block in zip(joined, blocks, strict=True)]


def _put_together(windows: Tensor, block: Any) -> Tensor:
    """(B * windows, tokens, C), image-major, as (B, h, w, C)."""
    (height, width), (down, right) = block.input_resolution, block.window_size
    if height % down or width % right:
        raise ValueError(
            f"windows of {down} x {right} patches do not divide a map of {height} x {width}: "
            "patch contrast needs an image size at which they do"
        )
    grid = windows.view(-1, height // down, width // right, down, right, windows.shape[-1])
    cyclic = grid.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])
    return cyclic.roll(block.shift_size, dims=(1, 2))
