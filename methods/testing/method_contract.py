"""What every method is held to: what it declares, and the images that its synthesizer makes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor, nn

from backbones.base import Backbone
from methods.base import Method, SynthesisTask, Synthesizer, SyntheticImages
from methods.registry import engine_names, get_engine
from methods.settings import configure, faults_of
from methods.testing.models import disturbed, images_for, seeded, teacher_of
from methods.testing.rules import (
    ProgressCheck,
    check_config,
    check_evidence,
    check_families,
    check_losses,
    equal,
    model_kept,
    random_state_kept,
    require,
)

LATER_EPOCH = 5
"""Epoch at which a synthesizer that needs the student is asked for another set."""


def check_method(method: Method, *, overrides: Mapping[str, Any] | None = None) -> None:
    """Run every contract test over a method, on tiny models of every family that it supports.

    `overrides` are settings that it cannot do without, such as a folder. Raises ContractBroken.
    """
    check_method_declarations(method)
    if method.synthesizer is not None:
        for family in sorted(method.synthesizer.families):
            check_synthesis(method, family, overrides=overrides)


def check_method_declarations(method: Method) -> None:
    """The method's name, texts, settings and the settings that it gives its engine. Raises ContractBroken."""
    name = method.name
    require(name.isidentifier() and name.islower(), f"{name}: the name is no lower-case identifier")
    check_evidence(name, method)
    known = get_args(get_type_hints(Method)["data_use"])
    require(
        method.data_use in known, f"{name}: data_use '{method.data_use}' is not one of {', '.join(known)}"
    )
    if method.synthesizer is None:
        return
    require(issubclass(method.synthesizer, Synthesizer), f"{name}: its synthesizer is no Synthesizer")
    require(
        method.synthesizer.needs_real_images == (method.data_use == "real images"),
        f"{name}: needs_real_images and data_use contradict each other",
    )
    check_config(name, method.synthesizer.Config)
    check_families(name, method.synthesizer)
    if method.engine_settings is not None and method.engine in engine_names():
        settings = method.engine_settings(configure(method.synthesizer.Config, "paper", {}))
        faults = "; ".join(faults_of(get_engine(method.engine).Config, settings))
        require(not faults, f"{name}: engine_settings: {faults}")


def check_synthesis(method: Method, family: str, *, overrides: Mapping[str, Any] | None = None) -> None:
    """The images that a method makes under the smoke budget from a tiny teacher of one family.

    The seed alone decides them, bit for bit; they are finite, of the teacher's shape and range; teacher,
    student and global random numbers stay as they were. Raises ContractBroken.
    """
    assert method.synthesizer is not None
    name = f"{method.name} on {family}"
    config = configure(method.synthesizer.Config, "smoke", overrides or {})
    teacher = teacher_of(family)
    first, again, other = (_sets(name, method.synthesizer, config, teacher, seed) for seed in (1, 1, 2))
    for made, same, different in zip(first, again, other, strict=True):
        _check_images(name, made, teacher, config, keeps_range=method.synthesizer.keeps_pixel_range)
        repeated = equal([made.images, made.labels], [same.images, same.labels])
        require(
            repeated and made.final_losses == same.final_losses,
            f"{name}: the same seed gives other images, labels or losses",
        )
        require(
            method.data_use != "none" or not torch.equal(made.images, different.images),
            f"{name}: another seed gives the same images",
        )
    _check_batches(name, method.synthesizer, overrides or {}, teacher)
    if len(first) > 1:
        moved = not torch.equal(first[0].images, first[1].images)
        require(moved, f"{name}: a later set, made with the student, is the first again")


def _check_batches(
    name: str, kind: type[Synthesizer], overrides: Mapping[str, Any], teacher: Backbone
) -> None:
    """A set that can be divided is the same when its batches are made one by one."""
    if not {"images", "batch_size"} <= {field.name for field in dataclasses.fields(kind.Config)}:
        return
    config = configure(kind.Config, "smoke", {**overrides, "images": 5, "batch_size": 2})
    if kind(config).batches == 1:
        return

    def made(batches: range | None) -> SyntheticImages:
        student = disturbed(teacher) if kind.needs_student else None
        task = SynthesisTask(teacher, seeded(), ProgressCheck(name), student, batches=batches)
        return kind(config).synthesize(task)

    whole, parts = made(None), [made(range(i, i + 1)) for i in range(kind(config).batches)]
    same = equal(
        [whole.images, whole.labels],
        [torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])],
    )
    require(same, f"{name}: batches that are made alone are others than in the whole set")


def _sets(
    name: str, kind: type[Synthesizer], config: Any, teacher: Backbone, seed: int
) -> list[SyntheticImages]:
    """The first set and, where images depend on the student, a later one.

    The same instance makes both. One that declares its later sets not bound to it has kept nothing: another
    instance makes the same later set.
    """
    synthesizer = kind(config)
    student = disturbed(teacher) if synthesizer.needs_student else None
    real = _real_images(teacher, synthesizer.config.images) if synthesizer.needs_real_images else None
    task = SynthesisTask(teacher, seeded(seed), ProgressCheck(name), student, real_images=real)
    with contextlib.ExitStack() as kept:
        kept.enter_context(random_state_kept(name))
        kept.enter_context(model_kept(name, "teacher", teacher.model))
        kept.enter_context(model_kept(name, "student", student or nn.Identity()))
        first = synthesizer.synthesize(task)
        if student is None:
            return [first]
        later = dataclasses.replace(task, epoch=LATER_EPOCH, previous=first)
        numbers = task.generator.get_state()
        second = synthesizer.synthesize(later)
        if kind.later_sets != "bound":
            task.generator.set_state(numbers)
            other = kind(config).synthesize(later)
            require(
                equal([second.images, second.labels], [other.images, other.labels]),
                f"{name}: another instance makes another later set, so later_sets should be 'bound'",
            )
            _check_first_needs(name, kind(config), task, first)
        return [first, second]


def _check_first_needs(
    name: str, synthesizer: Synthesizer, task: SynthesisTask, first: SyntheticImages
) -> None:
    """A first set that is said to need no student is the same without one."""
    if synthesizer.needs_student_at(0):
        return
    alone = synthesizer.synthesize(
        dataclasses.replace(task, generator=seeded(task.generator.initial_seed()), student=None)
    )
    require(
        equal([first.images, first.labels], [alone.images, alone.labels]),
        f"{name}: the first set depends on the student, which needs_student_at(0) denies",
    )


def _check_images(
    name: str, made: SyntheticImages, teacher: Backbone, config: Any, *, keeps_range: bool
) -> None:
    images, labels = made.images, made.labels
    wanted = (config.images, *teacher.data.input_size)
    require(images.shape == wanted, f"{name}: images are {tuple(images.shape)}, not {wanted}")
    require(images.dtype == torch.float32, f"{name}: images are {images.dtype}, not float32")
    require(images.device == teacher.device, f"{name}: images are on {images.device}, not on the teacher's")
    require(not images.requires_grad, f"{name}: images carry a gradient")
    require(images.isfinite().all(), f"{name}: images are not finite")
    low, high = teacher.pixel_range()
    inside = ((images >= low) & (images <= high)).all()
    require(inside or not keeps_range, f"{name}: images leave the range of pixels (keeps_pixel_range)")
    targets = teacher.guidance.nothing(len(images))
    given, expected = ((tuple(t.shape), t.dtype) for t in (labels, targets))
    require(given == expected, f"{name}: labels are {given}, not {expected} as the guidance's targets")
    check_losses(name, made.final_losses)


def _real_images(teacher: Backbone, count: int) -> tuple[Tensor, Tensor]:
    low, high = teacher.pixel_range()
    return images_for(teacher, count).clamp(low, high), teacher.guidance.draw(count, generator=seeded())
