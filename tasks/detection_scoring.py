"""Scores detections against annotated boxes and masks, and against the full-precision model's detections.

    ap, ap50, ap75       COCO's average precision over IoU 0.50:0.95, at 0.50 and at 0.75; percent
    ap_small, ap_medium, ap_large
                         the same as ap on objects up to 32 x 32, up to 96 x 96 and above, in pixels
    mask_ap, ...         the six of them on masks, where the model and every annotation have one
    agreement            mean F1 between the confident detections of the model and of full precision; percent

pycocotools computes the averages, from the 100 best detections of each image; an average over no object at
all is absent. Paired tests compare image by image: the outcome `ap` of an image is COCO's AP over that image
alone, averaged over the categories in it, and where it shows nothing that counts, 1 without a detection
scored above 0.5 and else 0. Its mean is no `ap`, which sorts the detections of all images together.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MOST = 100
"""Detections of one image that count, best first."""
CONFIDENT = 0.5
"""Least score of a detection that a user would be shown: from here on its class beats all others together."""
_SAME_PLACE = 0.5
"""Least IoU of two detections of the same object."""
_AVERAGES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
"""What pycocotools' first six statistics are."""


class Truth(NamedTuple):
    """What one image shows, in its own pixels."""

    size: tuple[int, int]
    """(width, height)."""
    boxes: Tensor
    """(k, 4) float64: left, top, right, bottom."""
    labels: Tensor
    """(k,) int64 class indices."""
    areas: Tensor
    """(k,) float64: pixels of the object, or of its box where the object's outline is not known."""
    crowd: Tensor
    """(k,) bool: regions with many objects, where detections neither count nor cost."""
    segments: tuple[Any, ...] | None = None
    """One per box, polygons or run lengths as in COCO's files; None where a box has none."""


class Found(NamedTuple):
    """What a model finds in one image, best first, at most `MOST`, in the image's own pixels."""

    boxes: Tensor
    """(n, 4) float64: left, top, right, bottom."""
    labels: Tensor
    """(n,) int64."""
    scores: Tensor
    """(n,) float64 in [0, 1]."""
    segments: tuple[Any, ...] | None = None
    """One per box, compressed run lengths; None where the model gives no masks."""


class CocoScores(NamedTuple):
    """COCO's averages and what single images contribute to comparisons."""

    metrics: dict[str, float]
    """Name -> percent."""
    image_ap: np.ndarray
    """(images,) float64 in [0, 1]."""
    notes: tuple[str, ...]


def coco_scores(truths: Sequence[Truth], found: Sequence[Found]) -> CocoScores:
    """COCO's metrics over images in the same order; no metric at all where no image shows anything."""
    boxes = _judged(truths, found, "bbox")
    metrics = _averages(boxes)
    notes: tuple[str, ...] = ()
    if any(one.segments is not None for one in found):
        bare = sum(len(truth.labels) for truth in truths if truth.segments is None)
        if bare:
            notes = (f"no mask AP: {bare} annotated objects are in images without all segmentations",)
        else:
            masks = _averages(_judged(truths, found, "segm"))
            metrics |= {f"mask_{name}": value for name, value in masks.items()}
    return CocoScores(metrics, _image_aps(boxes, found), notes)


def rows_of(found: Found, size: tuple[int, int]) -> Tensor:
    """(100, 6) float32: label, score, then the box in shares of the image; label -1 where a row is unused."""
    import torch

    rows = torch.zeros(MOST, 6)
    rows[:, 0] = -1
    count = len(found.labels)
    rows[:count, 0], rows[:count, 1] = found.labels.float(), found.scores.float()
    rows[:count, 2:] = (found.boxes / found.boxes.new_tensor([*size, *size])).float()
    return rows


def agreement(rows: Tensor, expected: Tensor) -> float:
    """F1 in [0, 1] between the confident detections of two models in one image, each (100, 6).

    Best first, a detection is matched to the free one of its class that it overlaps most, if by IoU 0.5.
    Where both have none they agree.
    """
    from torchvision.ops import box_iou

    ours, theirs = _confident(rows), _confident(expected)
    if not len(ours) and not len(theirs):
        return 1.0
    overlaps = box_iou(ours[:, 2:], theirs[:, 2:])
    overlaps[ours[:, :1] != theirs[:, 0]] = 0
    matches = 0
    for row in range(len(ours) if len(theirs) else 0):
        best = int(overlaps[row].argmax())
        if overlaps[row, best] >= _SAME_PLACE:
            matches += 1
            overlaps[:, best] = 0
    return 2 * matches / (len(ours) + len(theirs))


def encoded_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> tuple[dict[str, Any], ...]:
    """Run lengths on the image of masks (n, h, w) inside boxes (n, 4), the image's pixels, from 0.5 up."""
    import numpy as np
    from pycocotools.mask import encode

    pasted = (_pasted(mask, box, size) for mask, box in zip(masks, boxes.tolist(), strict=True))
    return tuple(encode(np.asfortranarray(image)) for image in pasted)


def _pasted(mask: Tensor, box: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """(height, width) uint8: the mask stretched over its box, read at the centres of the pixels."""
    import math

    import torch

    width, height = size
    canvas = torch.zeros(height, width, dtype=torch.uint8)
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    if left < right and top < bottom and box[0] < box[2] and box[1] < box[3]:
        x = (torch.arange(left, right) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        y = (torch.arange(top, bottom) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        grid = torch.stack([columns, rows], dim=-1)[None].float()
        values = torch.nn.functional.grid_sample(mask[None, None].float(), grid, align_corners=False)
        canvas[top:bottom, left:right] = values[0, 0] >= 0.5
    return canvas.numpy()


def _confident(rows: Tensor) -> Tensor:
    return rows[(rows[:, 0] >= 0) & (rows[:, 1] >= CONFIDENT)]


def _judged(truths: Sequence[Truth], found: Sequence[Found], kind: Literal["bbox", "segm"]) -> Any:
    """pycocotools' COCOeval after its work, in silence. Images are numbered from 1, as are boxes: it takes
    a match with annotation 0 for none."""
    from pycocotools.cocoeval import COCOeval

    images = [{"id": i, "width": t.size[0], "height": t.size[1]} for i, t in enumerate(truths, 1)]
    labels = sorted({label for truth in truths for label in truth.labels.tolist()})
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(
            _indexed(images, labels, _true_entries(truths)),
            _indexed(images, labels, _found_entries(found, kind)),
            kind,
        )
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def _indexed(images: list[dict[str, Any]], labels: Iterable[int], entries: Iterable[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    numbered = [{**entry, "id": number} for number, entry in enumerate(entries, 1)]
    categories = [{"id": label} for label in labels]
    coco.dataset = {"images": images, "categories": categories, "annotations": numbered}
    coco.createIndex()
    return coco


def _true_entries(truths: Iterable[Truth]) -> Iterator[dict[str, Any]]:
    for image, truth in enumerate(truths, 1):
        columns = (truth.boxes.tolist(), truth.labels.tolist(), truth.areas.tolist(), truth.crowd.tolist())
        for row, (box, label, area, crowd) in enumerate(zip(*columns, strict=True)):
            entry = {"image_id": image, "category_id": label, "bbox": _sized(box), "area": area}
            segment = {} if truth.segments is None else {"segmentation": truth.segments[row]}
            yield {**entry, **segment, "iscrowd": int(crowd)}


def _found_entries(found: Iterable[Found], kind: Literal["bbox", "segm"]) -> Iterator[dict[str, Any]]:
    from pycocotools.mask import area

    for image, one in enumerate(found, 1):
        columns = (one.boxes.tolist(), one.labels.tolist(), one.scores.tolist())
        for row, (box, label, score) in enumerate(zip(*columns, strict=True)):
            entry = {"image_id": image, "category_id": label, "bbox": _sized(box), "score": score}
            if kind == "bbox":
                yield {**entry, "area": entry["bbox"][2] * entry["bbox"][3]}
            elif one.segments is not None:
                yield {**entry, "segmentation": one.segments[row], "area": float(area(one.segments[row]))}


def _sized(box: Sequence[float]) -> list[float]:
    """Left, top, width, height."""
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def _averages(judge: Any) -> dict[str, float]:
    """The averages in percent; pycocotools gives -1 where there is no object to find."""
    values = zip(_AVERAGES, judge.stats, strict=False)
    return {name: 100 * float(value) for name, value in values if value >= 0}


def _image_aps(judge: Any, found: Sequence[Found]) -> np.ndarray:
    import numpy as np

    images, areas = len(found), len(judge.params.areaRng)
    per_image: list[list[float]] = [[] for _ in range(images)]
    # Category by category, area by area (the first means any size), image by image.
    for start in range(0, len(judge.evalImgs), areas * images):
        for image, judged in enumerate(judge.evalImgs[start : start + images]):
            objects = 0 if judged is None else int((np.asarray(judged["gtIgnore"]) == 0).sum())
            if objects:
                per_image[image].append(_average_precision(judged, objects, judge.params.recThrs))
    quiet = [not len(one.scores) or float(one.scores.max()) <= CONFIDENT for one in found]
    return np.array([np.mean(aps) if aps else float(q) for aps, q in zip(per_image, quiet, strict=True)])


def _average_precision(judged: dict[str, Any], objects: int, recalls: np.ndarray) -> float:
    """COCO's AP of one category in one image: precision at 101 recalls, averaged over the IoU thresholds."""
    import numpy as np

    counted = ~judged["dtIgnore"].astype(bool)
    right = np.cumsum((judged["dtMatches"] > 0) & counted, axis=1)
    wrong = np.cumsum((judged["dtMatches"] == 0) & counted, axis=1)
    precision = right / np.maximum(right + wrong, 1)
    # The best precision at this recall or a higher one.
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for hits, precisions in zip(right, precision, strict=True):
        first = np.searchsorted(hits / objects, recalls, side="left")
        reached = first[first < len(precisions)]
        total += precisions[reached].sum() / len(recalls)
    return float(total / len(right))
