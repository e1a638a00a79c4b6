"""Pictures of a detection run: what full precision and the quantized models find, and the images made.

    STORE/pictures/SUITE/detections_BACKBONE_BITS.png    one row per report image: truth, full precision, and
                                                         each method at its first seed with a result
    STORE/pictures/SUITE/images_LABEL.png                one set each, with the boxes it aimed at; of one that
                                                         was dropped the sample that stayed

Drawn from stored artifacts, so that a repeated run draws the same. Detections are shown from a score of 0.5.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from backbones import SPECS
from backbones.guidance.outputs import corners
from harness.planning.plan import Trial
from harness.planning.session import Session
from harness.reporting.image_grids import Box, from_pixels, pictures_of, save_rows, with_boxes
from harness.stages.base import Stage
from harness.stages.kinds import is_made
from harness.stages.superseded import SAMPLE, sample_of
from tasks.detection import SHOWN, DetectionTask, Scene
from tasks.detection_scoring import CONFIDENT
from tasks.image_files import ReadingReport
from tasks.registry import get_task

if TYPE_CHECKING:
    from torch import Tensor

_WIDTH = 288
"""Pixels of a panel."""
_COLUMNS = 4


def save_detection_pictures(session: Session) -> Path | None:
    """The folder of the suite's pictures, made anew; None where its task detects nothing.

    Trials without a result are left out. Raises tasks.base.DataError when the report images are gone.
    """
    task_class = get_task(session.suite.task)
    if not issubclass(task_class, DetectionTask):
        return None
    folder = session.store.root / "pictures" / session.suite.name
    folder.mkdir(parents=True, exist_ok=True)
    task = task_class(session.context.data.get(task_class.data_name or ""))
    for backbone, reference in session.plan.references().items():
        _save_comparisons(session, task, backbone, reference, folder)
    _save_syntheses(session, task, folder)
    return folder


def _save_comparisons(
    session: Session, task: DetectionTask, backbone: str, reference: Stage, folder: Path
) -> None:
    """One sheet per bit-width of a backbone."""
    store = session.store
    if not is_made(reference, store):
        return
    data = SPECS[backbone].data
    scenes = list(itertools.islice(task.scenes("report", data, ReadingReport()), SHOWN))
    columns = {"full precision": store.tensors(reference.key)["shown"]}
    for bits in dict.fromkeys(trial.bits for trial in session.plan.trials if trial.quantization):
        compared = {
            f"{trial.method} + {trial.engine}, seed {trial.seed}": store.tensors(trial.evaluation)["shown"]
            for trial in _first_seeds(session, backbone, bits)
        }
        sheet = folder / f"detections_{backbone}_{bits}.png"
        save_comparison(scenes, {**columns, **compared}, task.class_names, sheet)


def _first_seeds(session: Session, backbone: str, bits: str) -> list[Trial]:
    """Per method, engine and settings the first trial that has a result."""
    first: dict[tuple[str, ...], Trial] = {}
    for trial in session.plan.trials:
        wanted = trial.quantization and (trial.backbone, trial.bits) == (backbone, bits)
        if wanted and is_made(session.plan.stages[trial.evaluation], session.store):
            settings = json.dumps(trial.settings, sort_keys=True)
            first.setdefault((trial.method, trial.engine, settings), trial)
    return list(first.values())


def save_comparison(
    scenes: Sequence[Scene], found: Mapping[str, Tensor], class_names: Sequence[str], path: Path
) -> None:
    """Save one row per scene: its truth, then what each model found.

    `found` holds per caption rows (n, 100, 6): label (-1 for none), score, and corners in shares.
    """
    rows = []
    for index, scene in enumerate(scenes):
        picture = _panel(from_pixels(scene.pixels[None])[0])
        shares = scene.truth.boxes / scene.truth.boxes.new_tensor([*scene.truth.size, *scene.truth.size])
        truth = [
            Box((box[0], box[1], box[2], box[3]), label, class_names[label])
            for box, label in zip(shares.tolist(), scene.truth.labels.tolist(), strict=True)
        ]
        answers = [_found_boxes(rows[index], class_names) for rows in found.values()]
        rows.append([with_boxes(picture, boxes) for boxes in (truth, *answers)])
    save_rows(rows, path, ("truth", *found))


def _found_boxes(rows: Tensor, class_names: Sequence[str]) -> list[Box]:
    return [
        Box((left, top, right, bottom), int(label), f"{class_names[int(label)]} {score:.2f}")
        for label, score, left, top, right, bottom in rows.tolist()
        if label >= 0 and score >= CONFIDENT
    ]


def _save_syntheses(session: Session, task: DetectionTask, folder: Path) -> None:
    """A grid per stage that left images, or a sample; two of one label are told apart by their keys."""
    drawn: dict[str, str] = {}
    sets = {key: trial for trial in session.plan.trials for key in _sets_of(trial)}
    for key, trial in sets.items():
        made = is_made(session.plan.stages[key], session.store)
        stored = session.store.images(key) if made else sample_of(session.store, key)
        if "images" not in stored:
            continue
        pictures = pictures_of(stored["images"][:SAMPLE], SPECS[trial.backbone].data)
        panels = [
            with_boxes(_panel(picture), _target_boxes(target, task.class_names))
            for picture, target in zip(pictures, stored["labels"], strict=False)
        ]
        name = re.sub(r"\W+", "_", session.plan.stages[key].label)
        name = f"{name}_{key[:6]}" if name in drawn else name
        drawn[name] = key
        rows = [panels[start : start + _COLUMNS] for start in range(0, len(panels), _COLUMNS)]
        save_rows(rows, folder / f"images_{name}.png")


def _sets_of(trial: Trial) -> list[str]:
    """Keys of the stages that make a set of the trial and nothing else, and of what holds its last."""
    if trial.images is None:
        return []
    return list(dict.fromkeys([*(key for key in trial.making if key not in trial.training), trial.images]))


def _target_boxes(targets: Tensor, class_names: Sequence[str]) -> list[Box]:
    """The used ones of (K, 5) rows of class, centre and size in shares; none of a target without boxes."""
    if targets.dim() != 2:
        return []
    used = targets[targets[:, 0] >= 0]
    labels = used[:, 0].long().tolist()
    return [
        Box((box[0], box[1], box[2], box[3]), label, class_names[label])
        for box, label in zip(corners(used[:, 1:]).tolist(), labels, strict=True)
    ]


def _panel(picture: Image.Image) -> Image.Image:
    """The picture at the width of a panel; the pixels of a tiny one stay visible."""
    size = (_WIDTH, max(1, round(picture.height * _WIDTH / picture.width)))
    return picture.resize(size, resample=Image.Resampling.NEAREST if 2 * picture.width <= _WIDTH else None)
