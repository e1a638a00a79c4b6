"""Which stages make a student, and in what order: its first set, links of its training, further sets.

    synthesize -> quantize                                      images from the teacher alone
    synthesize -> train -> train -> quantize                    the same, trained for long
    synthesize -> train -> synthesize -> train -> ... quantize  sets that follow the student

A training is cut before a set that has a stage of its own, and where a link has shown enough images; both
follow from the settings. No key tells where: a link's says which training and how many epochs of it, a later
set's which training and before which epoch, and the student's is that of a training that was never cut.
What lies between the first set, the last one and the student leads to these alone: it is dropped when they
stand.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from harness.planning.stage_builder import StageBuilder
from harness.stages.base import Stage
from methods.base import Synthesizer, TrainingEngine
from methods.bits import Bits
from methods.registry import get_engine

IMAGES_PER_LINK = 300_000
"""Images that a link shows the student, each as often as it does: 30 epochs of 10,000, minutes on a GPU."""


@dataclass(frozen=True)
class Making:
    """The stages that make one student, in the order in which they run."""

    stages: tuple[Stage, ...]
    images: Stage
    """What holds the last set that the student is made from."""

    @property
    def student(self) -> Stage:
        """What ends with the student."""
        return self.stages[-1]

    @property
    def synthesis(self) -> Stage | None:
        """The first set; None where it is made with the student."""
        return self.stages[0] if self.stages[0].kind == "synthesize" else None

    @property
    def training(self) -> tuple[Stage, ...]:
        """The stages that work on the student."""
        return tuple(stage for stage in self.stages if stage.kind != "synthesize")


def making_of(
    builder: StageBuilder,
    name: str,
    engine: str,
    backbone: str,
    bits: Bits,
    seed: int,
    after: tuple[str, ...] = (),
) -> Making:
    """The stages of one student, made by the builder; `after` are keys that all work on it waits for."""
    synthesizer = builder.synthesizer(name, engine)
    stages: list[Stage] = []
    holder = link = first = None
    if _is_alone(synthesizer):
        holder = first = builder.synthesis(name, engine, backbone, seed)
        stages.append(first)
    ends = _ends(builder, name, engine, synthesizer)
    for begin, end in itertools.pairwise((0, *ends)):
        parents = {"training": link.key} if link else {}
        if _has_own_set(synthesizer, begin):
            assert holder is not None
            parents["images"] = holder.key
            holder = builder.later_set(name, engine, backbone, bits, seed, first, begin, parents)
            stages.append(holder)
        if holder is not None:
            parents["images"] = holder.key
        until = None if end == ends[-1] else end
        link = builder.quantization(name, engine, backbone, bits, seed, first, after, parents, until)
        stages.append(link)
        if holder is None or _makes_sets(synthesizer, engine, begin, end):
            holder = link
    assert holder is not None
    assert link is not None
    kept = [stage.key for stage in (first, holder, link) if stage is not None]
    goals = [link] if holder.key in (link.key, stages[0].key) else [link, holder]
    builder.lead_to(goals, [stage for stage in stages if stage.key not in kept])
    return Making(tuple(builder.stages[stage.key] for stage in stages), builder.stages[holder.key])


def link_ends(epochs: int, images: int, refreshes: tuple[int, ...]) -> tuple[int, ...]:
    """Epochs after which a training on so many images is cut, its last included.

    It is cut at every refresh, and in between as soon as `IMAGES_PER_LINK` were shown.
    """
    step = max(1, IMAGES_PER_LINK // max(1, images))
    ends: list[int] = []
    for begin, end in itertools.pairwise((0, *refreshes, epochs)):
        ends += [*range(begin + step, end, step), end]
    return tuple(ends)


def _ends(builder: StageBuilder, name: str, engine: str, synthesizer: Synthesizer) -> tuple[int, ...]:
    """Where the links of a training end; what cannot be cut is one piece."""
    made = get_engine(engine)(builder.engine_config(name, engine), builder.suite.scope)
    if not isinstance(made, TrainingEngine) or _is_bound(synthesizer):
        return (1,)
    refreshes = tuple(epoch for epoch in range(1, made.epochs) if _has_own_set(synthesizer, epoch))
    return link_ends(made.epochs, getattr(synthesizer.config, "images", 0), refreshes)


def _is_bound(synthesizer: Synthesizer) -> bool:
    return synthesizer.needs_student and synthesizer.later_sets == "bound"


def _is_alone(synthesizer: Synthesizer) -> bool:
    """Whether the first set is a stage that any student may begin with."""
    return not _is_bound(synthesizer) and not synthesizer.needs_student_at(0)


def _has_own_set(synthesizer: Synthesizer, epoch: int) -> bool:
    """Whether a set is made before this epoch, in a stage of its own."""
    apart = synthesizer.needs_student and synthesizer.later_sets == "apart"
    return apart and synthesizer.refreshes_at(epoch)


def _makes_sets(synthesizer: Synthesizer, engine: str, begin: int, end: int) -> bool:
    """Whether the piece of a training between these epochs makes sets itself, or may."""
    if not synthesizer.needs_student:
        return False
    if not issubclass(get_engine(engine), TrainingEngine):
        return True  # when it asks for further sets is its own business
    inside = synthesizer.later_sets == "inside"
    return inside and any(synthesizer.refreshes_at(epoch) for epoch in range(max(1, begin), end))
