"""What a report shows beyond records, read from a store: images, curves, the teacher's answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from backbones import SPECS
from harness.errors import ArtifactError
from harness.planning.plan import Trial
from harness.reporting.image_grids import enlarged, pictures_of
from harness.stages.facts import images_facts
from harness.stages.superseded import sample_of
from harness.store import Store
from results.report.report import Curve, Extras, Gallery, Picture, Teacher

if TYPE_CHECKING:
    from PIL import Image

_PICTURES = 8
"""Images shown of a set."""
_SIDE = 112
"""Pixels of a shown image; smaller ones are enlarged, larger ones scaled down."""
_MOST_GALLERIES = 40
_MOST_CURVES = 60


def extras_of(trials: Sequence[Trial], store: Store) -> Extras:
    """The extras of these trials, with pictures of the first one's seed alone.

    What cannot be read is left out, and a sentence says how much.
    """
    galleries: list[Gallery] = []
    curves: list[Curve] = []
    teachers: dict[tuple[str, str], Teacher] = {}
    dropped = 0
    for trial in trials:
        if trial.method == "fp32" and (found := _teacher(store, trial.evaluation)):
            teachers[trial.backbone, found[0]] = found[1]
    for key, trial in _sets(trials):
        if len(galleries) < _MOST_GALLERIES:
            shown = _gallery(store, key, trial)
            dropped += shown is None
            galleries += [shown] * (shown is not None)  # type: ignore[list-item]
        if len(curves) < _MOST_CURVES and (curve := _curve(store, key, trial)):
            curves.append(curve)
    said = f"{dropped} sets of images have no data in the store any more, so no pictures of them are shown."
    return Extras(tuple(galleries), tuple(curves), teachers, missing=(said,) if dropped else ())


def _sets(trials: Sequence[Trial]) -> Iterator[tuple[str, Trial]]:
    """Key of each set of images that the trials end with or begin with, and its first trial."""
    seen: set[str] = set()
    for trial in trials:
        for key in (trial.synthesis, trial.images):
            if key is not None and key not in seen and trial.seed == trials[0].seed:
                seen.add(key)
                yield key, trial


def _title(key: str, trial: Trial) -> str:
    """`maskaq + lsq_qat, deit_tiny w4a4, seed 0, last set`; of a set that engines share the method alone."""
    shared = key == trial.synthesis
    who = trial.method if shared else f"{trial.method} + {trial.engine}"
    bits = "" if shared else f" {trial.bits}"
    which = "" if trial.synthesis == trial.images else ", first set" if shared else ", last set"
    return f"{who}, {trial.backbone}{bits}, seed {trial.seed}{which}"


def _gallery(store: Store, key: str, trial: Trial) -> Gallery | None:
    """The first images of a set; None where the store does not hold them."""
    try:
        stored = store.images(key)
    except ArtifactError:
        stored = sample_of(store, key)
    if "images" not in stored:
        return None
    pictures = pictures_of(stored["images"][:_PICTURES], SPECS[trial.backbone].data)
    labels = stored["labels"][:_PICTURES]
    captions = [f"class {int(label)}" if label.dim() == 0 and label >= 0 else "" for label in labels]
    shown = [Picture(_address(p), caption) for p, caption in zip(pictures, captions, strict=True)]
    return Gallery(_title(key, trial), tuple(shown))


def _address(picture: Image.Image) -> str:
    """The picture in a `data:` address: PNG of a tiny one, else JPEG."""
    tiny = max(picture.size) < _SIDE
    made = enlarged(picture, _SIDE) if tiny else picture.copy()
    made.thumbnail((2 * _SIDE, 2 * _SIDE))
    stream = io.BytesIO()
    made.save(stream, format="PNG" if tiny else "JPEG", **({} if tiny else {"quality": 82}))
    kind = "png" if tiny else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _curve(store: Store, key: str, trial: Trial) -> Curve | None:
    try:
        shares = images_facts(store, key).gradient_shares
    except ArtifactError:
        return None
    if len(shares.iterations) < 2:
        return None
    return Curve(_title(key, trial), tuple(map(float, shares.iterations)), dict(shares.shares))


def _teacher(store: Store, key: str) -> tuple[str, Teacher] | None:
    """Digest of the samples, and what a classifier's full precision says of them."""
    import numpy as np

    try:
        facts = store.meta(key)["facts"]
        outputs = store.arrays(key, "outputs").get("outputs")
    except (ArtifactError, KeyError):
        return None
    if outputs is None or outputs.ndim != 2 or len(outputs) != facts["images"]:
        return None
    scores = outputs.astype(np.float64)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    best = np.partition(shares, -2, axis=1)[:, -2:]
    margins = (best[:, 1] - best[:, 0]).tolist()
    return facts["samples"], Teacher(shares.argmax(axis=1).tolist(), margins)
