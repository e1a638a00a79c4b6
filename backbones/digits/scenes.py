"""Scenes for a tiny detector: 2 to 5 handwritten digits at random sizes and places on textured canvases.

A scene is a function of split and seed. The digits come from `backbones.digits.images`, so splits are
disjoint in the source digits, and nothing is cached here either. Knows nothing about models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from backbones.digits.images import Digits, DigitsSplit, load_digits_split

if TYPE_CHECKING:
    from torch import Generator, Tensor

SIDE = 96
"""Pixels of the square canvas."""
CLASSES = 10
MOST_DIGITS = 5
TUNE_SCENES = 100
REPORT_SCENES = 200

_FEWEST_DIGITS = 2
_DIGIT_SIDES = (22.0, 40.0)
"""Pixels: smallest and largest side of the square that holds a digit."""
_MOST_OVERLAP = 0.1
"""Largest share of the smaller of two digits' squares that may be covered: each box keeps its digit."""
_TRIES = 32
_VISIBLE = 0.3
"""Opacity from which a pixel belongs to a digit, and thus to its box."""
_INK = (0.7, 1.0)
_PAPER = (0.0, 0.45)
_GRAINS = ((4, 0.6), (16, 0.25), (96, 0.15))
"""Texture: cells per side of a layer of noise, and its share."""
_CHUNK = 128
_SEEDS: dict[DigitsSplit, int] = {"train": 1, "tune": 2, "report": 3}


@dataclass(frozen=True)
class Scenes:
    """Images with their truth; lists have one entry per image, with k digits each."""

    images: Tensor
    """(n, 1, 96, 96) float32 in [0, 1]."""
    boxes: list[Tensor]
    """(k, 4) float32 left, top, right, bottom in pixels: the smallest box around the visible digit."""
    labels: list[Tensor]
    """(k,) int64, 0 to 9."""
    positions: list[Tensor]
    """(k,) int64: place of each digit among scikit-learn's 1,797."""


class _Layout(NamedTuple):
    """Where digits stand: all of shape (n, MOST_DIGITS)."""

    source: Tensor
    """Index of the digit among those of the split."""
    side: Tensor
    """Side of the digit's square, in pixels."""
    x: Tensor
    """Horizontal place of the square's centre, in pixels."""
    y: Tensor
    """Vertical place of the square's centre, in pixels."""
    present: Tensor
    """Whether the canvas has a digit in this slot."""


def load_scenes_split(split: DigitsSplit) -> Scenes:
    """The fixed scenes of `tune` (100) or `report` (200); ValueError for `train`, which is endless."""
    counts: dict[DigitsSplit, int] = {"tune": TUNE_SCENES, "report": REPORT_SCENES}
    if split not in counts:
        raise ValueError(f"the scenes of '{split}' are endless: draw some with load_scenes")
    return load_scenes(split, counts[split], 0)


def load_scenes(split: DigitsSplit, count: int, seed: int) -> Scenes:
    """Draw `count` scenes with the digits of a split; the same arguments give the same scenes."""
    import torch

    generator = torch.Generator().manual_seed(seed * len(_SEEDS) + _SEEDS[split])
    return draw_scenes(load_digits_split(split), count, generator=generator)


def draw_scenes(digits: Digits, count: int, *, generator: Generator) -> Scenes:
    """Draw `count` scenes with the given digits, whose images the caller may have varied."""
    import torch

    chunks = [min(_CHUNK, count - start) for start in range(0, count, _CHUNK)]
    parts = [_draw(digits, size, generator) for size in chunks]
    return Scenes(
        torch.cat([part.images for part in parts]),
        [boxes for part in parts for boxes in part.boxes],
        [labels for part in parts for labels in part.labels],
        [positions for part in parts for positions in part.positions],
    )


def scene_targets(scenes: Scenes) -> Tensor:
    """(n, 5, 5) rows of class, centre x, centre y, width, height in shares of the canvas; class -1 unused."""
    import torch

    from backbones.guidance.outputs import centres

    targets = torch.zeros(len(scenes.images), MOST_DIGITS, 5)
    targets[..., 0] = -1
    for row, boxes, labels in zip(targets, scenes.boxes, scenes.labels, strict=True):
        row[: len(labels), 0] = labels.float()
        row[: len(labels), 1:] = centres(boxes / SIDE)
    return targets


def coco_annotations(scenes: Scenes) -> dict[str, Any]:
    """The truth as COCO's instances JSON: image ids from 1, category id = digit + 1, boxes in pixels."""
    images = [
        {"id": number, "file_name": f"{number:06d}.png", "width": SIDE, "height": SIDE}
        for number in range(1, len(scenes.images) + 1)
    ]
    annotations: list[dict[str, Any]] = []
    for image, boxes, labels in zip(images, scenes.boxes, scenes.labels, strict=True):
        for (left, top, right, bottom), label in zip(boxes.tolist(), labels.tolist(), strict=True):
            width, height = right - left, bottom - top
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": label + 1,
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _draw(digits: Digits, count: int, generator: Generator) -> Scenes:
    import torch

    layout = _layout(count, len(digits.labels), generator)
    opacity = _opacity(digits, layout)
    boxes = _tight_boxes(opacity)
    ink = _between(_INK, torch.rand(count, MOST_DIGITS, 1, 1, generator=generator))
    paper = _paper(count, generator)
    images = paper * (1 - opacity.amax(dim=1, keepdim=True)) + (opacity * ink).amax(dim=1, keepdim=True)
    places = torch.tensor(digits.positions)[layout.source]
    labels = digits.labels[layout.source]
    return Scenes(
        images.clamp(0, 1),
        [boxes[i, here] for i, here in enumerate(layout.present)],
        [labels[i, here] for i, here in enumerate(layout.present)],
        [places[i, here] for i, here in enumerate(layout.present)],
    )


def _layout(count: int, digits: int, generator: Generator) -> _Layout:
    """Slot after slot takes the first of its tries that keeps clear of the earlier slots."""
    import torch

    wanted = torch.randint(_FEWEST_DIGITS, MOST_DIGITS + 1, (count, 1), generator=generator)
    source = torch.randint(digits, (count, MOST_DIGITS), generator=generator)
    draws = torch.rand(3, count, MOST_DIGITS, _TRIES, generator=generator)
    sides = _between(_DIGIT_SIDES, draws[0])
    xs, ys = (sides / 2 + share * (SIDE - sides) for share in draws[1:])
    present = torch.arange(MOST_DIGITS) < wanted
    chosen = torch.zeros(3, count, MOST_DIGITS)
    for slot in range(MOST_DIGITS):
        tries = torch.stack([sides[:, slot], xs[:, slot], ys[:, slot]])
        overlap = _overlap(tries, chosen[:, :, :slot], present[:, :slot]).clamp(min=_MOST_OVERLAP)
        least, best = overlap.min(dim=-1)
        chosen[:, :, slot] = tries.gather(2, best.expand(3, -1).unsqueeze(-1)).squeeze(-1)
        # The second digit always finds room; a later one may not, and is left out.
        present[:, slot] &= (least <= _MOST_OVERLAP) | (slot < _FEWEST_DIGITS)
    return _Layout(source, chosen[0], chosen[1], chosen[2], present)


def _overlap(tries: Tensor, placed: Tensor, present: Tensor) -> Tensor:
    """(n, tries): greatest share of the smaller square that a try has in common with a placed digit."""
    import torch

    if placed.shape[2] == 0:
        return torch.zeros(tries.shape[1:])
    (side, x, y), (sides, xs, ys) = tries.unsqueeze(-1), placed.unsqueeze(2)
    reach, smaller = (side + sides) / 2, torch.minimum(side, sides)
    common = [torch.minimum(reach - gap.abs(), smaller).clamp(min=0) for gap in (x - xs, y - ys)]
    share = common[0] * common[1] / smaller**2
    return (share * present.unsqueeze(1)).amax(dim=-1)


def _opacity(digits: Digits, layout: _Layout) -> Tensor:
    """(n, MOST_DIGITS, 96, 96) in [0, 1]: every digit alone on the canvas; empty slots are 0."""
    drawn = digits.images[layout.source].squeeze(2) * layout.present[:, :, None, None]
    across, down = (_stretching(centre, layout.side, drawn.shape[-1]) for centre in (layout.x, layout.y))
    return down @ drawn @ across.transpose(-2, -1)


def _stretching(centre: Tensor, side: Tensor, cells: int) -> Tensor:
    """(..., 96, cells): bilinear weights that stretch cells over `side` pixels around `centre`."""
    import torch

    pixels = torch.arange(SIDE) + 0.5
    place = (pixels - centre.unsqueeze(-1) + side.unsqueeze(-1) / 2) * (cells / side).unsqueeze(-1) - 0.5
    return (1 - (place.unsqueeze(-1) - torch.arange(cells)).abs()).clamp(min=0)


def _tight_boxes(opacity: Tensor) -> Tensor:
    """(n, MOST_DIGITS, 4): pixel edges around everything that is visible; zeros for an empty slot."""
    import torch

    visible = opacity >= _VISIBLE
    edges = []
    for axis in (2, 3):  # columns, then rows
        line = visible.any(dim=axis).float()
        first = line.argmax(dim=-1)
        last = SIDE - line.flip(-1).argmax(dim=-1)
        edges.append((first, last))
    (left, right), (top, bottom) = edges
    boxes = torch.stack([left, top, right, bottom], dim=-1).float()
    return boxes * visible.any(dim=3).any(dim=2, keepdim=True)


def _paper(count: int, generator: Generator) -> Tensor:
    """(n, 1, 96, 96): layers of noise from coarse to fine, in the range of `_PAPER`."""
    import torch
    import torch.nn.functional as F

    paper = torch.zeros(count, 1, SIDE, SIDE)
    for cells, share in _GRAINS:
        noise = torch.rand(count, 1, cells, cells, generator=generator)
        paper += share * F.interpolate(noise, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return _between(_PAPER, paper)


def _between(bounds: tuple[float, float], share: Tensor) -> Tensor:
    low, high = bounds
    return low + (high - low) * share
