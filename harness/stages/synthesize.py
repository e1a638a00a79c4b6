"""The stage `synthesize`: one set of images; the real-data reference draws its own from the task.

A first set is made from the teacher alone. A later one follows the set before, the parent `images`, and is
made with the student as its training stands, the parent `training`. The batches of a large set are made by
stages of kind `shard`, a few each, and the set is joined from them. A batch that collapses is repeated alone,
so that a set is the same however it was divided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from harness.stages.base import Artifact, RunContext, Stage
from harness.stages.cost import cost_of, environment, measured
from harness.stages.data_guard import no_data
from harness.stages.facts import StudentRecipe, SynthesisFacts, synthesis_facts
from harness.stages.image_sets import StoredSet, generator_of_sets, set_facts, set_tensors
from harness.stages.progress import StageProgress
from harness.stages.rebuild import student_of, synthesizer_of, task_of, teacher_of
from harness.stages.retries import with_retries
from harness.store import Store
from methods.base import SynthesisTask, SyntheticImages

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from backbones import Backbone
    from methods.base import Progress, Synthesizer


SHARD = "shard "
"""What the roles of a set's shards begin with; their order is that of their batches."""


class _Made(NamedTuple):
    images: SyntheticImages
    generator: Generator


def synthesize(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """Make the images of `stage.settings`; a batch that collapses is tried once more with the next seed.

    Raises SynthesisFailed, and DataAccessRefused when a data-free method looks for a data set.
    """
    shards = [stage.parents[role] for role in sorted(stage.parents) if role.startswith(SHARD)]
    if shards:
        return _joined(shards, stage, context, store)
    teacher = teacher_of(stage, context)
    seed, epoch = stage.settings["seed"], stage.settings.get("epoch", 0)
    with no_data(context):
        synthesizer = synthesizer_of(stage.settings)
        student = None
        if "training" in stage.parents:
            recipe = StudentRecipe.of(stage.settings)
            student = student_of(recipe, store.tensors(stage.parents["training"]), teacher)
    before = (
        StoredSet.read(store, stage.parents["images"], teacher.device) if "images" in stage.parents else None
    )
    real = _real_images(synthesizer, stage, context, teacher)

    def make(attempt: int, batches: range | None = None, told: Progress = progress) -> _Made:
        generator = generator_of_sets(seed, attempt, before)
        previous = before.made if before else None
        task = SynthesisTask(teacher, generator, told, student, epoch, previous, batches, real)
        return _Made(synthesizer.synthesize(task), generator)

    with no_data(context, reference=real is not None), measured(context.device) as cost:
        if synthesizer.batches > 1:
            wanted = range(*stage.settings.get("batches", (synthesizer.batches,)))
            made, notes = _by_batch(make, wanted, progress)
        else:
            made, notes = with_retries(make)
    facts = SynthesisFacts(
        environment=environment(context.device, context.threads),
        cost=cost_of(context, cost, synthesis=cost.seconds),
        synthetic_images=len(made.images.images),
        final_losses=dict(made.images.final_losses),
        gradient_shares=made.images.gradient_shares,
        epoch=epoch,
        notes=notes,
    )
    if before is not None and stage.kind != "shard":  # the costs of a shard are its own
        facts = facts.after(before.facts)
    return Artifact(set_tensors(made.images, made.generator if synthesizer.needs_student else None), facts)


def _by_batch(
    make: Callable[..., _Made], batches: range, progress: Progress
) -> tuple[_Made, tuple[str, ...]]:
    """The batches, each made alone and repeated alone where it collapses, and the notes of those that did."""
    import torch

    def counted(done: int, step: int, total: int, losses: Mapping[str, float]) -> None:
        progress(done * total + step, len(batches) * total, losses)

    made: list[_Made] = []
    notes: dict[str, None] = {}
    for done, number in enumerate(batches):
        one = partial(make, batches=range(number, number + 1), told=partial(counted, done))
        found, said = with_retries(one)
        made.append(found)
        notes |= dict.fromkeys(said)
    sets = [one.images for one in made]
    whole = replace(
        sets[0],
        images=torch.cat([one.images for one in sets]),
        labels=torch.cat([one.labels for one in sets]),
        final_losses=_means([(len(one.images), one.final_losses) for one in sets]),
    )
    return _Made(whole, made[0].generator), tuple(notes)


def _joined(shards: Sequence[str], stage: Stage, context: RunContext, store: Store) -> Artifact:
    """The set whose batches the shards hold, in order."""
    import torch

    with measured(context.device) as cost:
        parts = [store.tensors(key) for key in shards]
        tensors = dict(parts[0])
        for name in ("images", "labels"):
            tensors[name] = torch.cat([part[name] for part in parts])
    known = [synthesis_facts(store, key) for key in shards]
    facts = replace(
        known[0],
        environment=environment(context.device, context.threads),
        cost=cost_of(context, cost, synthesis=cost.seconds),
        synthetic_images=sum(facts.synthetic_images for facts in known),
        final_losses=_means([(facts.synthetic_images, facts.final_losses) for facts in known]),
    )
    for shard in reversed(known):
        facts = facts.after(shard)
    if "images" in stage.parents:
        facts = facts.after(set_facts(store, stage.parents["images"]))
    return Artifact(tensors, facts)


def _means(parts: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Each loss term's mean over parts of a set, which have so many images."""
    total = sum(images for images, _ in parts)
    return {name: sum(images * losses[name] for images, losses in parts) / total for name in parts[0][1]}


def _real_images(
    synthesizer: Synthesizer, stage: Stage, context: RunContext, teacher: Backbone
) -> tuple[Tensor, Tensor] | None:
    """Images and labels of the real-data reference, read before its work is measured; None for any other."""
    if not synthesizer.needs_real_images:
        return None
    task = task_of(stage.settings["task"], context)
    count = synthesizer.config.images
    return task.calibration_images(teacher, count, stage.settings["seed"])
