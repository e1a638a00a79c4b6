"""What only led to other artifacts is dropped once these stand; of a set of images a sample stays.

    shards -> set                               shards go when their set stands
    link -> later set -> link ... -> student    all of these go when the student and its last set stand

The first set of a student stays, since others share it, and so does the last, which analyses look at. A stage
that was dropped is not made again unless one of its goals has to be.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.errors import ArtifactError
from harness.stages.base import Stage, Way
from harness.stages.kinds import is_made
from harness.store import Store

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = 16
"""Images that stay of a set: as many as a picture shows."""

_SAMPLED = ".sample"
"""What the key of a sample ends with, behind that of its set."""


def is_superseded(stage: Stage, store: Store) -> bool:
    """Whether the stage only leads to what is there: another run on the store may have dropped it."""
    return any(stage.key in way.keys and _has_arrived(way, store) for way in stage.ways)


def drop_what_led_to(stage: Stage, store: Store) -> None:
    """Drop the artifacts that nobody needs any more now that this stage's is there."""
    for way in stage.ways:
        if any(goal.key == stage.key for goal in way.goals) and _has_arrived(way, store):
            for key in way.keys:
                with contextlib.suppress(Exception):  # a full disk, say: room is worth no stage that is done
                    _drop(key, store)


def sample_of(store: Store, key: str) -> dict[str, Tensor]:
    """What stayed of a set that was dropped; empty where nothing did, or it cannot be read."""
    with contextlib.suppress(ArtifactError):
        return store.tensors(f"{key}{_SAMPLED}")
    return {}


def _has_arrived(way: Way, store: Store) -> bool:
    return all(is_made(goal, store) for goal in way.goals)


def _drop(key: str, store: Store) -> None:
    try:
        meta, found = store.meta(key), store.images(key)
    except ArtifactError:  # it is gone, or damaged
        store.remove(key)
        return
    if meta.get("kind") != "shard" and "images" in found:
        sample = {name: found[name][:SAMPLE].clone() for name in ("images", "labels")}
        store.write(f"{key}{_SAMPLED}", sample, {**meta, "kind": "sample"})
    store.remove(key)
