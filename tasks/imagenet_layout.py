"""Where ImageNet's pictures lie below the folder that a user gives: official, Kaggle's and other layouts.

    DIR/val/<wnid>/...              sorted; DIR may be val itself, and <wnid> may hold folders
    DIR/val/*.JPEG                  flat, with a table of labels (`imagenet_labels`) at hand
    DIR/ILSVRC/Data/CLS-LOC/val     as Kaggle packs it

A layout that is not understood is refused in a sentence that says what was seen. Opens no picture.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backbones.preprocessing.picture_files import is_image, pictures_under, some
from tasks.base import DataError
from tasks.image_files import Sample
from tasks.imagenet_labels import find_labels

_VAL = ("val", "validation", "valid", "ILSVRC2012_img_val", "ILSVRC2012_val")
_TRAIN = ("train", "training", "ILSVRC2012_img_train", "ILSVRC2012_train")
_ROOTS = ("", "Data/CLS-LOC", "ILSVRC/Data/CLS-LOC", "ILSVRC2012", "imagenet", "ILSVRC2012/Data/CLS-LOC")
_WNID = re.compile(r"(n\d{8})(?!\d)", re.IGNORECASE)


class Layout(NamedTuple):
    """The folders of the two parts."""

    val: Path
    train: Path | None
    """Where it lies beside `val`; None where it does not, or where the user gave `val` itself."""


class Listing(NamedTuple):
    """The pictures of one part."""

    by_class: dict[str, list[Sample]]
    """Class folder, or WordNet id of loose pictures -> samples in order of file name."""
    loose: list[str]
    """Names of pictures beside the class folders, to which no table gives a label."""
    unopened: list[str]
    """Names of what cannot be opened."""

    @property
    def samples(self) -> list[Sample]:
        """All samples, class after class."""
        return [sample for samples in self.by_class.values() for sample in samples]


def find_layout(folder: Path) -> Layout:
    """The parts below `folder`; raises DataError, which says what was seen, when there is no `val`."""
    roots = [folder / root for root in _ROOTS if (folder / root).is_dir()]
    places = [root / name for root in roots for name in _VAL if (root / name).is_dir()]
    for place in places:
        if _is_sorted(place) or _pictures(place):
            beside = [place.parent / name for name in _TRAIN if (place.parent / name).is_dir()]
            return Layout(place, beside[0] if beside else None)
    train = next((folder / name for name in _TRAIN if (folder / name).is_dir()), None)
    if _is_sorted(folder) or _pictures(folder):
        return Layout(folder, train)
    looked = " nor ".join(str(place) for place in (places[0] if places else folder / "val", folder))
    raise DataError(
        f"neither {looked} holds folders named by WordNet id, such as n01440764 "
        f"({'; '.join(_seen(place) for place in [*places[:1], folder])}): "
        "give --data imagenet=DIR where DIR/val/<wnid>/ holds the images"
    )


def listed(part: Path, given: Path, prefix: str = "") -> Listing:
    """The pictures of a part; raises DataError for foreign or empty class folders and for a flat part."""
    indices = class_indices()
    folders = sorted(e.name for e in os.scandir(part) if e.is_dir() and not e.name.startswith("."))
    wnids = {name: _wnid(name) for name in folders}
    unknown = [name for name, wnid in wnids.items() if wnid not in indices]
    if unknown:
        raise DataError(
            f"{part} holds {len(unknown)} of {len(folders)} folders that are no class of ImageNet-1k: "
            f"{some(unknown)}: name every folder by its WordNet id, such as n01440764"
        )
    found = Listing({}, [], [])
    for name, wnid in wnids.items():
        pictures = pictures_under(part / name)
        found.by_class[name] = [
            Sample(f"{prefix}{path.relative_to(part).as_posix()}", path, indices[wnid])
            for path in pictures.paths
        ]
        found.unopened.extend(f"{prefix}{name}/{lost}" for lost in pictures.unopened)
    _refuse_empty(part, found)
    _add_loose(part, given, prefix, found)
    return found


@functools.cache
def class_indices() -> dict[str, int]:
    """WordNet id -> class index, 0 to 999."""
    from timm.data.imagenet_info import ImageNetInfo

    info: Any = ImageNetInfo("imagenet-1k")
    return {wnid: index for index, wnid in enumerate(info.label_names())}


def _refuse_empty(part: Path, found: Listing) -> None:
    """Refuse class folders without a picture, except where all that they hold cannot be opened."""
    lost = {name.split("/")[-2] for name in found.unopened}
    empty = [name for name, samples in found.by_class.items() if not samples and name not in lost]
    if empty:
        raise DataError(f"{part} has no images in {some(empty)}: fill the folder or remove it")


def _add_loose(part: Path, given: Path, prefix: str, found: Listing) -> None:
    """Label the pictures that lie in the part itself from a table, or count them where no table is."""
    pictures = _pictures(part)
    there = [name for name in pictures if (part / name).is_file()]
    found.unopened.extend(f"{prefix}{name}" for name in pictures if name not in set(there))
    labels = find_labels(part, given) if there else {}
    for name in there:
        wnid = labels.get(os.path.splitext(name)[0])
        if wnid in class_indices():
            sample = Sample(f"{prefix}{name}", part / name, class_indices()[wnid])
            found.by_class.setdefault(wnid, []).append(sample)
        else:
            found.loose.append(f"{prefix}{name}")
    if not any(found.by_class.values()):
        _refuse_flat(part, there, labels)


def _refuse_flat(part: Path, pictures: list[str], labels: Mapping[str, str]) -> None:
    if not pictures:
        raise DataError(f"{part} has no images in any class folder: fill the folder or remove it")
    known = f"the labels that lie beside it are of others, such as {next(iter(labels))}: " if labels else ""
    raise DataError(
        f"{part} is flat, {len(pictures)} loose images ({some(pictures)}) and no class folders: {known}"
        f"sort them into {part}/<wnid>/, or put LOC_val_solution.csv, or the devkit's "
        "ILSVRC2012_validation_ground_truth.txt with its meta.mat, beside it"
    )


def _pictures(place: Path) -> list[str]:
    """Names of the pictures in the folder itself."""
    return sorted(entry.name for entry in os.scandir(place) if is_image(entry.name) and not _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_sorted(place: Path) -> bool:
    with os.scandir(place) as entries:
        return any(_WNID.match(entry.name) and _is_folder(entry) for entry in entries)


def _wnid(name: str) -> str:
    """The WordNet id that a folder's name begins with, as in `n01440764_tench`; else the name."""
    match = _WNID.match(name)
    return match[1].lower() if match else name


def _seen(place: Path) -> str:
    """What a folder holds, in few words."""
    folders = sorted(e.name for e in os.scandir(place) if _is_folder(e) and not e.name.startswith("."))
    parts = [f"{len(folders)} folders ({some(folders)})"] if folders else []
    pictures = _pictures(place)
    parts += [f"{len(pictures)} images"] if pictures else []
    return f"{place.name} holds {' and '.join(parts) or 'neither folders nor images'}"
