"""Reads and checks COCO's annotation files: which image shows what.

A class index is the place of a category among COCO's 80, whatever a file lists: their ids run from 1 to 90
with gaps. What makes a file ambiguous is refused; single annotations that cannot be used are left out,
counted and named. Opens no image.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backbones.preprocessing.picture_files import counted, some
from tasks.base import DataError
from tasks.detection_scoring import Truth

_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,"
    "handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,"
    "surfboard,tennis racket,bottle,,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,"
    "broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,,dining table,,,toilet,,tv,laptop,"
    "mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,,book,clock,vase,scissors,"
    "teddy bear,hair drier,toothbrush"
)
CATEGORIES = {number: name for number, name in enumerate(_NAMES.split(","), 1) if name}
"""COCO's category id -> name, in the order of the class indices."""
_INDICES = {number: index for index, number in enumerate(CATEGORIES)}
_SAME = "annotations taken once that are equal to another one in image, class and box"
_HUGE = 1e12
"""Numbers from here on are no pixels; what is not a number is not below it either."""
_BORDER = 1.0
"""Pixels by which COCO's own boxes may exceed their image; they are taken as they are."""


class Annotations(NamedTuple):
    """A checked annotation file."""

    truths: Mapping[str, Truth]
    """File name -> what the image shows, in order of the names; images without an object are among them."""
    notes: tuple[str, ...]
    """What was left out, cut or filled in: one sentence for each kind."""


def read_annotations(path: Path) -> Annotations:
    """The file's images and what they show; raises DataError when it cannot be read without guessing."""
    content = _parsed(path)
    listed = _listed_categories(content["categories"], path)
    images = _images(content["images"], path)
    entries = [_read(entry, f"annotation {k}", path) for k, entry in enumerate(content["annotations"])]
    _check_categories(entries, listed, path)
    kept: dict[int, list[dict[str, Any]]] = {image: [] for image in images}
    remarks: dict[str, list[str]] = defaultdict(list)
    twins = _Twins()
    for number, entry in enumerate(entries):
        name = str(entry.get("id", number))
        fault = _fault(entry, images) or twins.fault(entry)
        if fault:
            remarks[fault].append(name)
        else:
            _repair(entry, images[entry["image_id"]][1], remarks)
            kept[entry["image_id"]].append(entry)
    _refuse_loss(remarks, len(entries), path)
    bare = sorted(name for image, (name, _) in images.items() if not kept[image])
    if bare:
        remarks["images without an object, kept as background"] = bare
    truths = {name: _truth(kept[image], size) for image, (name, size) in images.items()}
    notes = tuple(counted(what, names) for what, names in remarks.items())
    return Annotations(dict(sorted(truths.items())), notes)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        # From bytes, json tells the encoding and passes over a byte order mark.
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"no annotations at {path}: give --data coco=DIR where DIR/annotations/ holds the file"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}): download it again") from None
    _require(content, ("images", "annotations", "categories"), "the file", path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content[key], list):
            raise DataError(f"{path}: '{key}' is no list: give a file in COCO's instances format")
    return content


def _require(entry: Any, keys: Sequence[str], what: str, path: Path) -> None:
    missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
    if missing:
        raise DataError(
            f"{path}: {what} has no {' and no '.join(missing)}: give a file in COCO's instances format"
        )


def _listed_categories(entries: Sequence[Any], path: Path) -> dict[int, str]:
    """Category id -> name; refuses a file that numbers its categories in a way of its own."""
    listed: dict[int, str] = {}
    for entry in entries:
        _require(entry, ("id", "name"), "a category", path)
        number, name = _whole(entry["id"]), entry["name"]
        if number is None or not isinstance(name, str):
            raise DataError(f"{path}: category {entry['id']!r} needs a whole number as id and a text as name")
        if CATEGORIES.get(number, name) != name:
            raise DataError(
                f"{path}: category {number} is '{name}', in COCO it is '{CATEGORIES[number]}': "
                "number the categories as COCO does, 1 to 90 with gaps"
            )
        listed[number] = name
    return listed


def _read(entry: Any, where: str, path: Path) -> dict[str, Any]:
    """An annotation with its ids as whole numbers, None where they are none."""
    _require(entry, ("image_id", "category_id", "bbox"), where, path)
    return {**entry, **{key: _whole(entry[key]) for key in ("image_id", "category_id")}}


def _check_categories(entries: Sequence[Mapping[str, Any]], listed: Mapping[int, str], path: Path) -> None:
    """Refuse annotations of categories that the file does not list, or that COCO does not have."""
    used = Counter(entry["category_id"] for entry in entries if entry["category_id"] is not None)
    foreign = {number: name for number, name in listed.items() if number in used and number not in CATEGORIES}
    if foreign:
        names = some([f"{number} '{name}'" for number, name in foreign.items()])
        raise DataError(
            f"{path}: {sum(used[n] for n in foreign)} of {len(entries)} annotations are of categories that "
            f"COCO does not have ({names}): the task coco scores COCO's 80 categories alone"
        )
    unlisted = sorted(set(used) - set(listed))
    if unlisted:
        ids = some([str(number) for number in unlisted])
        raise DataError(
            f"{path}: {sum(used[n] for n in unlisted)} of {len(entries)} annotations are of categories that "
            f"'categories' does not list ({ids}): list every category with its name"
        )


class _Twins:
    """Tells annotations that were met before, by their id, or by their image, class and box."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._marks: set[tuple[Any, ...]] = set()

    def fault(self, entry: Mapping[str, Any]) -> str:
        """Why the annotation is taken no second time; empty where it is new."""
        mark = (entry["image_id"], entry["category_id"], *entry["bbox"])
        name = "" if entry.get("id") is None else str(entry["id"])
        if mark in self._marks:
            return _SAME
        if name and name in self._ids:
            return "annotations left out whose id another one has"
        self._marks.add(mark)
        self._ids.add(name)
        return ""


def _refuse_loss(remarks: Mapping[str, Sequence[str]], total: int, path: Path) -> None:
    """Refuse a file most of whose annotations fall out for one reason; taking equal ones once loses none."""
    for what, names in remarks.items():
        if "left out" in what and 2 * len(names) > total:
            raise DataError(f"{path}: of {total} {counted(what, names)}: most of the file cannot be used")


def _images(entries: Sequence[Any], path: Path) -> dict[int, tuple[str, tuple[int, int]]]:
    """Image id -> file name and (width, height)."""
    images: dict[int, tuple[str, tuple[int, int]]] = {}
    names = set()
    for position, entry in enumerate(entries):
        _require(entry, ("id", "file_name", "width", "height"), f"image {position}", path)
        number, width, height = (_whole(entry[key]) for key in ("id", "width", "height"))
        name = entry["file_name"]
        if number is None or width is None or height is None or min(width, height) <= 0:
            raise DataError(f"{path}: image {position} needs a whole number as id, width and height")
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: the file name {name!r} of image {number} is no text")
        if number in images or name in names:
            raise DataError(f"{path}: image {number} ({name}) is listed twice: list every image once")
        images[number] = (name, (width, height))
        names.add(name)
    return images


def _whole(value: Any) -> int | None:
    """The whole number that an integer, a float or a text stands for; None where it stands for none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        if isinstance(value, str) and value.strip().isdecimal():
            return int(value)
        return int(value) if isinstance(value, int) or float(value).is_integer() else None
    except ValueError:
        return None


def _fault(entry: Mapping[str, Any], images: Mapping[int, tuple[str, tuple[int, int]]]) -> str:
    """Why an annotation is left out; empty where it is not."""
    box = entry["bbox"]
    if entry["image_id"] not in images:
        return "annotations left out whose image is not listed"
    if entry["category_id"] is None:
        return "annotations left out whose category is no whole number"
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return "annotations left out whose box is not four numbers"
    if box[2] <= 0 or box[3] <= 0:
        return "annotations left out whose box has no size"
    width, height = images[entry["image_id"]][1]
    if box[0] >= width or box[1] >= height or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
        return "annotations left out whose box is outside the image"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE


def _repair(entry: dict[str, Any], size: tuple[int, int], remarks: dict[str, list[str]]) -> None:
    """Cut a box that reaches beyond its image, and fill in an area that is missing."""
    name = str(entry.get("id", "?"))
    left, top, width, height = entry["bbox"]
    right, bottom = left + width, top + height
    if min(left, top) < -_BORDER or right > size[0] + _BORDER or bottom > size[1] + _BORDER:
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
        remarks["boxes cut at the border of their image"].append(name)
    entry["corners"] = (left, top, right, bottom)
    if not _is_number(entry.get("area")) or entry["area"] <= 0:
        entry["area"] = (right - left) * (bottom - top)
        remarks["areas taken from the box, as none is given"].append(name)


def _truth(entries: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Truth:
    import torch

    boxes = torch.tensor([entry["corners"] for entry in entries], dtype=torch.float64).view(-1, 4)
    segments = tuple(entry.get("segmentation") for entry in entries)
    return Truth(
        size=size,
        boxes=boxes,
        labels=torch.tensor([_INDICES[entry["category_id"]] for entry in entries], dtype=torch.int64),
        areas=torch.tensor([entry["area"] for entry in entries], dtype=torch.float64),
        crowd=torch.tensor([bool(entry.get("iscrowd")) for entry in entries], dtype=torch.bool),
        segments=segments if all(map(_is_segment, segments)) else None,
    )


def _is_segment(segment: Any) -> bool:
    """Whether pycocotools can read it: polygons of at least three corners, or run lengths."""
    if isinstance(segment, dict):
        return isinstance(segment.get("counts"), list | str) and isinstance(segment.get("size"), list)
    return (
        isinstance(segment, list)
        and len(segment) > 0
        and all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in segment)
        and all(_is_number(value) for polygon in segment for value in polygon)
    )
