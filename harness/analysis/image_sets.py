"""Fetches what is analysed: each set's images and the student made from them, from the store or made now.

The stages are those of a suite, so nothing is done twice. Measures nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backbones import SPECS, Backbone, load_backbone
from harness.errors import HarnessError, UsageError
from harness.execution.ensure import ensure
from harness.execution.schedulers.inline import InlineScheduler
from harness.planning.making import Making, making_of
from harness.planning.plan import missing_for
from harness.planning.request import Request
from harness.planning.session import Workbench, load_plugins_of, open_workbench
from harness.stages.base import RunContext, Stage
from harness.stages.facts import images_facts
from harness.stages.rebuild import stored_student
from harness.store import Store, open_store
from harness.suites.loading import load_suite
from methods.base import GradientShares
from tasks.base import DataError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor, nn

REFERENCES = ("real_data", "gaussian_noise")
"""Sets that every analysis has: what images should be like, and images that know nothing."""
_WITHOUT_SUITE: dict[str, Any] = {"methods": ("psaq_vit", "mimiq"), "bits": ("w4a4",), "budget": "fast"}


@dataclass(frozen=True)
class ImageSet:
    """Images of one method and the student made from them."""

    images: Tensor
    """(n, C, H, W) in normalized space, on the CPU."""
    student: nn.Module
    """The quantized model in evaluation mode, on the teacher's device."""
    gradient_shares: GradientShares = field(default_factory=GradientShares)
    """What each loss term of their synthesis moved."""


@dataclass(frozen=True)
class ImageSets:
    """Everything that one analysis looks at."""

    teacher: Backbone
    sets: Mapping[str, ImageSet]
    """Method -> its images and student; `real_data` first."""
    failures: tuple[str, ...]
    """A sentence for every method without images or student."""
    settings: Mapping[str, Any]
    """backbone, bits, engine, budget and seed of the analysis."""
    batch_size: int
    """Images per forward pass."""
    notes: tuple[str, ...] = ()
    """What the user should know about how the request was understood."""


def open_analysis(request: Request) -> Workbench:
    """The stage builder, context and notes of an analysis; raises UsageError with what is wrong."""
    return open_workbench(_completed(request))


def fetch(request: Request, console: Console) -> ImageSets:
    """Images and students of the request's methods and of the references, on one backbone, bits and seed.

    Without a suite: psaq_vit and mimiq at w4a4 under budget fast. `console` shows the stages that run.
    Raises UsageError for wrong requests, HarnessError when there are no real images to compare with.
    """
    builder, context, notes = open_analysis(request)
    suite = builder.suite
    backbone, bits, engine, seed = suite.backbones[0], suite.bits[0], suite.engines[0], suite.seeds[0]
    try:
        makings = {
            name: making_of(builder, name, engine, backbone, bits, seed)
            for name in (*REFERENCES, *suite.methods)
        }
    except DataError as error:
        raise UsageError(str(error)) from None
    store = open_store(context.store).create()
    with store.in_use():
        return _fetched(makings, Workbench(builder, context, notes), store, console)


def _fetched(makings: Mapping[str, Making], bench: Workbench, store: Store, console: Console) -> ImageSets:
    """What `fetch` gives, from stages that nobody prunes meanwhile."""
    builder, context, notes = bench
    suite = builder.suite
    backbone, bits, engine, seed = suite.backbones[0], suite.bits[0], suite.engines[0], suite.seeds[0]
    wanted = [stage.key for making in makings.values() for stage in (making.images, making.student)]
    missing = missing_for(wanted, builder.stages, store)
    reasons = _run(missing, context, store, console)
    teacher = load_backbone(backbone, context.weights[backbone], context.device)
    sets, failures = {}, []
    for name, making in makings.items():
        reason = next((reasons[stage.key] for stage in making.stages if stage.key in reasons), None)
        if reason is None:
            model, key = stored_student(store, making.student.key, teacher), making.images.key
            shares = images_facts(store, key).gradient_shares
            sets[name] = ImageSet(store.images(key)["images"], model, shares)
        elif name == "real_data":
            raise HarnessError(f"there are no real images to compare with: {reason}")
        else:
            failures.append(f"{name}: {reason}")
    settings = {
        "backbone": backbone,
        "bits": str(bits),
        "engine": engine,
        "budget": suite.budget,
        "seed": seed,
    }
    return ImageSets(teacher, sets, tuple(failures), settings, context.batch_size, notes)


def _completed(request: Request) -> Request:
    """The request with every choice made that an analysis needs; raises UsageError where the user has to."""
    if not request.rows.suite and not request.rows.backbones:
        raise UsageError("nothing to analyse: give --backbone NAME or --suite NAME")
    offered = _WITHOUT_SUITE
    if request.rows.suite:
        load_plugins_of(request)
        suite = load_suite(request.rows.suite)
        offered = {"methods": suite.methods, "bits": tuple(map(str, suite.bits)), "budget": suite.budget}
        offered["backbones"] = suite.backbones
    missing = {name: values for name, values in offered.items() if not getattr(request.rows, name)}
    request = dataclasses.replace(request, rows=dataclasses.replace(request.rows, **missing))
    faults = [
        f"--{option}: an analysis looks at one of {', '.join(values)}; choose it"
        for option, values in (("backbone", request.rows.backbones), ("bits", request.rows.bits))
        if len(values) > 1
    ]
    faults += [
        f"--backbone {name}: an analysis compares answers of classifiers, this is a detector"
        for name in request.rows.backbones
        if name in SPECS and SPECS[name].is_detector
    ]
    if faults:
        raise UsageError.of(faults)
    return request


def _run(stages: list[Stage], context: RunContext, store: Store, console: Console) -> dict[str, str]:
    """Run the stages that are not in the store; key -> reason of those that failed."""
    results = ensure(stages, context, store, InlineScheduler(), console)
    return {key: result.reason for key, result in results.items() if result.status not in ("done", "cached")}
