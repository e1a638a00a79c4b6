"""Labels of ImageNet's validation pictures where no folders sort them: the devkit's list, or Kaggle's table.

The devkit numbers the classes in an order of its own, which only its `meta.mat` gives.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from tasks.base import DataError

_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"
_TABLES = ("LOC_val_solution.csv", "*val*.csv")
_WNID = re.compile(r"n\d{8}")


def find_labels(part: Path, given: Path) -> dict[str, str]:
    """Name of a picture without its suffix -> WordNet id, from a table at hand; empty where there is none.

    Raises DataError when a table is broken or cannot be understood.
    """
    places = list(_places(part, given))
    for pattern in _TABLES:
        for place in places:
            for table in sorted(place.glob(pattern)):
                labels = _from_table(table)
                if labels:
                    return labels
    for place in places:
        if (place / _TRUTH).is_file():
            return _from_devkit(place / _TRUTH, places, part)
    return {}


def _places(part: Path, given: Path) -> Iterator[Path]:
    """Folders in which a table may lie: the part, what holds it up to the given folder, and devkits there."""
    above = [part, *part.parents]
    last = above.index(given) if given in above else 0
    for place in above[: max(last, 1) + 1]:
        yield place
        for devkit in sorted(place.glob("*devkit*")):
            yield from (inner for inner in (devkit, devkit / "data") if inner.is_dir())


def _from_table(file: Path) -> dict[str, str]:
    """The rows of `ImageId,PredictionString`, whose second cell begins with a WordNet id."""
    labels: dict[str, str] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            for row in csv.reader(lines):
                wnid = row[1].split()[:1] if len(row) > 1 else []
                if wnid and _WNID.fullmatch(wnid[0]):
                    labels[Path(row[0]).stem if "." in row[0] else row[0]] = wnid[0]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a table ({error}): repair or remove it") from None
    return labels


def _from_devkit(file: Path, places: list[Path], part: Path) -> dict[str, str]:
    """One line per picture, in the order of their numbers; each line is a class number of `meta.mat`."""
    meta = next((place / _META for place in places if (place / _META).is_file()), None)
    if meta is None:
        raise DataError(
            f"{part} is flat, and {file} gives its classes by the devkit's numbers, but the devkit's {_META} "
            f"that explains them is not there: put it beside the ground truth, or sort the images into "
            f"{part}/<wnid>/"
        )
    wnids = _numbered(meta)
    labels = {}
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8-sig").split(), 1):
            labels[f"ILSVRC2012_val_{number:08}"] = wnids[int(line)]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"line {number} of {file} is no class number of {meta} ({error})") from None
    return labels


def _numbered(meta: Path) -> dict[int, str]:
    """The devkit's class number -> WordNet id."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    except Exception as error:  # a damaged file fails in many ways inside the reader
        raise DataError(f"{meta} cannot be read ({error}): unpack the devkit again") from None
