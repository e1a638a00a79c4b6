"""Stage functions for scheduler tests: quick, failing, dying; each leaves a mark when it runs."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from harness.planning.plan import stage_key
from harness.stages.base import RunContext, Stage
from harness.store.artifacts import Store


def stage(name: str, function: str = "work", parents: tuple[Stage, ...] = (), **settings: Any) -> Stage:
    """A stage that runs a function of this file."""
    roles = {f"p{i}": parent.key for i, parent in enumerate(parents)}
    settings = {"name": name, **settings}
    key = stage_key("evaluate", settings, roles, "test")
    return Stage("evaluate", name, settings, roles, key, function=f"tests.harness.fake_stages:{function}")


def _mark(stage: Stage, store: Store) -> None:
    with (store.root / f"ran-{stage.settings['name']}").open("a") as file:
        file.write("x")


def runs_of(store: Store, name: str) -> int:
    """How often the stage of that name was started."""
    path = store.root / f"ran-{name}"
    return len(path.read_text()) if path.exists() else 0


def work(stage: Stage, context: RunContext, store: Store, progress: Any) -> Any:
    import torch

    _mark(stage, store)
    total = sum(store.tensors(key)["value"] for key in stage.parents.values())
    return {"value": torch.as_tensor(total) + torch.tensor([1.0])}, {"threads": torch.get_num_threads()}


def fails(stage: Stage, context: RunContext, store: Store, progress: Any) -> Any:
    _mark(stage, store)
    raise ValueError("planted failure")


def exhausts_memory(stage: Stage, context: RunContext, store: Store, progress: Any) -> Any:
    _mark(stage, store)
    raise MemoryError("planted")


def dies(stage: Stage, context: RunContext, store: Store, progress: Any) -> Any:
    _mark(stage, store)
    os.kill(os.getpid(), signal.SIGKILL)


def dies_once(stage: Stage, context: RunContext, store: Store, progress: Any) -> Any:
    if runs_of(store, stage.settings["name"]) == 0:
        dies(stage, context, store, progress)
    return work(stage, context, store, progress)


def reports(stage: Stage, context: RunContext, store: Store, progress: Any) -> Any:
    for step in range(20):
        time.sleep(stage.settings["seconds"])
        progress.report(step, float(step))
        progress.heed()
    return work(stage, context, store, progress)
