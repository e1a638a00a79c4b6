"""One method's images for one backbone, from the store or made now, outside any suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, UsageError
from harness.planning.request import Request
from harness.planning.session import open_workbench
from harness.stages.facts import student_facts, synthesis_facts
from harness.store import open_store

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StoredImages:
    """Images (n, C, H, W) in normalized space, with what their stage said of them."""

    images: Tensor
    final_losses: Mapping[str, float]
    seconds: float
    """What their synthesis took when it ran."""


def synthetic_images(request: Request, console: Any) -> StoredImages:
    """The images of the request's one method on its one backbone; its stage is shared with every suite.

    Raises UsageError for wrong requests and HarnessError when the synthesis fails.
    """
    from harness.execution.progress_view import RunView
    from harness.execution.schedulers.inline import InlineScheduler
    from methods.registry import get_method

    builder, context = open_workbench(request)
    name, backbone, seed = request.rows.methods[0], builder.suite.backbones[0], builder.suite.seeds[0]
    method = get_method(name)
    if method.synthesizer is None:
        raise UsageError(f"--method {name}: the full-precision row makes no images")
    engine = builder.suite.engines[0] if builder.suite.engines else method.engine or "psaq_ptq"
    if builder.is_coupled(name):
        stage = builder.quantization(name, engine, backbone, builder.suite.bits[0], seed, None)
    else:
        stage = builder.synthesis(name, engine, backbone, seed)
    store = open_store(context.store).create()
    if not store.holds(stage.key):
        with RunView([stage], 0, store, 1, console) as view:
            result = InlineScheduler().run([stage], context, view.on_event)[stage.key]
        if result.status not in ("done", "cached"):
            raise HarnessError(f"{stage.label}: {result.reason}")
    facts = (student_facts if builder.is_coupled(name) else synthesis_facts)(store, stage.key)
    return StoredImages(
        images=store.tensors(stage.key)["images"],
        final_losses=facts.final_losses,
        seconds=facts.cost.synthesis_seconds or 0.0,
    )
