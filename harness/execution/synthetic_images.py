"""One method's images for one backbone, from the store or made now, outside any suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.execution.ensure import require
from harness.execution.schedulers.inline import InlineScheduler
from harness.planning.making import making_of
from harness.planning.request import Request
from harness.planning.session import open_workbench
from harness.stages.facts import images_facts
from harness.store import open_store
from methods.registry import get_method

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor


@dataclass(frozen=True)
class StoredImages:
    """Images (n, C, H, W) in normalized space, with what their stage said of them."""

    images: Tensor
    final_losses: Mapping[str, float]
    seconds: float
    """What their synthesis took when it ran."""
    notes: tuple[str, ...]
    """What the user should know about how the request was understood."""


def synthetic_images(request: Request, console: Console) -> StoredImages:
    """The images of the request's one method on its one backbone; its stage is shared with every suite.

    Raises UsageError for wrong requests and HarnessError when the synthesis fails.
    """
    builder, context, notes = open_workbench(request)
    name, backbone, seed = request.rows.methods[0], builder.suite.backbones[0], builder.suite.seeds[0]
    method = get_method(name)
    if method.synthesizer is None:
        raise UsageError(f"--method {name}: the full-precision row makes no images")
    engine = builder.suite.engines[0] if builder.suite.engines else method.engine or "psaq_ptq"
    stage = making_of(builder, name, engine, backbone, builder.suite.bits[0], seed).images
    store = open_store(context.store).create()
    with store.in_use():
        require(stage, context, store, InlineScheduler(), console, among=builder.stages)
        facts, made = images_facts(store, stage.key), store.images(stage.key)
    return StoredImages(
        images=made["images"],
        final_losses=facts.final_losses,
        seconds=facts.cost.synthesis_seconds or 0.0,
        notes=notes,
    )
