"""Sets of images in the store, and the random numbers that the sets of one student share.

images, labels     the set
memory.NAME        what the next set of the student starts from beside it, where there may be one
set_generator      where the set left its random numbers, likewise

They are all there is of a stage that makes a set alone, and lie apart from a training or a student.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.stages.facts import TRAINING_COSTS, SynthesisFacts, images_facts
from harness.stages.rebuild import generator_of
from harness.store import Store
from methods.base import SyntheticImages

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

_MEMORY = "memory."
_GENERATOR = "set_generator"


@dataclass(frozen=True)
class StoredSet:
    """A set as another stage made it."""

    made: SyntheticImages
    facts: SynthesisFacts
    """What is known of it; its cost is that of all sets of the student so far, without training."""
    numbers: Tensor | None
    """State of the generator that it was made with; None where no other set follows it."""

    @classmethod
    def read(cls, store: Store, key: str, device: torch.device) -> StoredSet:
        """The set of the artifact `key`, its images on the device; raises ArtifactError."""
        stored = store.images(key)
        memory = {n.removeprefix(_MEMORY): value for n, value in stored.items() if n.startswith(_MEMORY)}
        made = SyntheticImages(stored["images"].to(device), stored["labels"].to(device), memory=memory)
        return cls(made, set_facts(store, key), stored.get(_GENERATOR))


def set_facts(store: Store, key: str) -> SynthesisFacts:
    """What is known of the set of the artifact `key`, without the cost of any training in it."""
    facts = images_facts(store, key)
    return dataclasses.replace(facts, cost=facts.cost.without(*TRAINING_COSTS))


def set_tensors(made: SyntheticImages, generator: Generator | None = None) -> dict[str, Tensor]:
    """A set under the names that other stages and the pictures look for.

    `generator` is given where another set may follow it.
    """
    tensors = {"images": made.images.float(), "labels": made.labels}
    if generator is None:
        return tensors
    memory = {f"{_MEMORY}{name}": value for name, value in made.memory.items()}
    return {**tensors, **memory, _GENERATOR: generator.get_state()}


def generator_of_sets(seed: int, attempt: int, before: StoredSet | None) -> Generator:
    """What a set draws from: it goes on where the set before ended.

    The first set, and every further attempt at a later one, has numbers of its own.
    """
    if before is None or before.numbers is None:
        return generator_of(seed, f"synthesize/{attempt}")
    generator = generator_of(seed, f"synthesize/{attempt}/after {before.facts.epoch}")
    if attempt == 0:
        generator.set_state(before.numbers)
    return generator
