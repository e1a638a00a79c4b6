"""Stage kinds for scheduler tests: quick, failing, dying; each leaves a mark when it runs."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.planning.plan import stage_key
from harness.stages.base import Artifact, RunContext, Stage
from harness.stages.cost import environment
from harness.stages.facts import Facts
from harness.stages.kinds import StageKind
from harness.stages.progress import StageProgress
from harness.store import Store


@dataclass(frozen=True, kw_only=True)
class FakeFacts(Facts):
    torch_threads: int


def stage(name: str, kind: str = "work", parents: tuple[Stage, ...] = (), **settings: Any) -> Stage:
    """A stage of one of this file's kinds."""
    roles = {f"p{i}": parent.key for i, parent in enumerate(parents)}
    settings = {"name": name, **settings}
    return Stage(kind, name, settings, roles, stage_key("fake", settings, roles, "test"))


def context_of(store: Path, **more: Any) -> RunContext:
    """A run context whose processes know this file's kinds."""
    return RunContext(store=store, modules=("tests.harness.fake_stages",), **more)


def _mark(stage: Stage, store: Store) -> None:
    with (store.root / f"ran-{stage.settings['name']}").open("a") as file:
        file.write("x")


def runs_of(store: Store, name: str) -> int:
    """How often the stage of that name was started."""
    path = store.root / f"ran-{name}"
    return len(path.read_text()) if path.exists() else 0


def work(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    _mark(stage, store)
    total = sum(store.tensors(key)["value"] for key in stage.parents.values())
    facts = FakeFacts(environment=environment("cpu", context.threads), torch_threads=torch.get_num_threads())
    return Artifact({"value": torch.as_tensor(total) + torch.tensor([1.0])}, facts)


def fails(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    _mark(stage, store)
    raise ValueError("planted failure")


def exhausts_memory(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    _mark(stage, store)
    raise MemoryError("planted")


def needs_parts(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """Runs out of memory in fewer than `parts` parts, as one of CUDA's libraries says it."""
    _mark(stage, store)
    if context.parts < stage.settings["parts"]:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    (store.root / "parts").write_text(str(context.parts))
    return work(stage, context, store, progress)


def dies(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    _mark(stage, store)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def dies_once(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    if runs_of(store, stage.settings["name"]) == 0:
        dies(stage, context, store, progress)
    return work(stage, context, store, progress)


def says_where(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    (store.root / "where").write_text(os.getcwd())
    (store.root / "source").write_text("\n".join(sys.path))
    return work(stage, context, store, progress)


def reports(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    for step in range(20):
        time.sleep(stage.settings["seconds"])
        progress.report(step, float(step))
        progress.stop_if_asked()
    return work(stage, context, store, progress)


def sleeps(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """Says how far it is ten times a second, for `seconds`."""
    _mark(stage, store)
    steps = int(stage.settings["seconds"] * 10)
    for step in range(steps):
        time.sleep(0.1)
        progress(step + 1, steps, {})
    facts = FakeFacts(environment=environment("cpu", context.threads), torch_threads=1)
    return Artifact({"value": torch.ones(1)}, facts)


def holds(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """Says which process has it on which GPU, and when; ends when `together` such stages have begun."""
    held = {"process": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "device": context.device}
    held |= {"gpus": context.gpus_per_trial, "threads": context.threads, "began": time.time()}
    (store.root / f"began-{stage.key}").touch()
    while len(list(store.root.glob("began-*"))) < stage.settings["together"]:
        time.sleep(0.05)
    (store.root / f"held-{stage.key}").write_text(json.dumps(held | {"ended": time.time()}))
    if stage.settings.get("fails"):
        raise ValueError("planted failure")
    facts = FakeFacts(environment=environment("cpu", context.threads), torch_threads=1)
    return Artifact({"value": torch.ones(1)}, facts)


def needs_a_gpu(stage: Stage, context: RunContext, store: Store, progress: StageProgress) -> Artifact:
    """Runs out of memory on a part of a GPU, and with `never` on a whole one too."""
    _mark(stage, store)
    if context.gpus_per_trial < 1 or stage.settings["never"]:
        raise MemoryError("planted")
    facts = FakeFacts(environment=environment("cpu", context.threads), torch_threads=1)
    return Artifact({"value": torch.ones(1)}, facts)


def held_by(store: Store) -> list[dict[str, Any]]:
    """What the stages of the kind `holds` said, in the order in which they began."""
    said = (json.loads(file.read_text()) for file in store.root.glob("held-*"))
    return sorted(said, key=lambda one: one["began"])


STAGE_KINDS = (
    *(
        StageKind(function.__name__, function, FakeFacts)
        for function in (
            work,
            fails,
            exhausts_memory,
            dies,
            dies_once,
            says_where,
            reports,
            sleeps,
            holds,
            needs_a_gpu,
        )
    ),
    StageKind("needs_parts", needs_parts, FakeFacts, divides=lambda _stage: True),
    StageKind("needs_parts_but_cannot", needs_parts, FakeFacts),
)
