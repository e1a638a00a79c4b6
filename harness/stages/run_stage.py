"""Does the work of one stage, in whatever process the scheduler chose, and publishes its artifact.

Every stage reads its parents from the store and writes one artifact; tensors never travel otherwise.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.stages.base import RunContext, Stage, StageResult, StageStopped, Status
from harness.stages.cost import environment, measured
from harness.stages.data_guard import data_allowed, no_data
from harness.store.artifacts import Store
from tasks.base import EvaluationOptions

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from backbones import Backbone
    from methods.base import EpochMonitor, SyntheticImages

_PROGRESS_INTERVAL = 0.3
"""Seconds between two progress files of one stage."""
_SYNTHESIS_ATTEMPTS = 2
"""A synthesis that fails is tried once more, with the next seed."""


Artifact = tuple[Mapping[str, "Tensor"], dict[str, Any]]
StageFunction = Callable[[Stage, RunContext, Store, Any], Artifact]


def run_stage(stage: Stage, context: RunContext, on_report: Callable[[], None] = lambda: None) -> StageResult:
    """Make the stage's artifact unless it is there. Never raises on failure: the result says why.

    `on_report` is called after every report of a watched stage.
    """
    store = Store(context.store).create()
    start = time.perf_counter()
    with store.claim(stage.key):
        if store.holds(stage.key):
            return StageResult(stage.key, "cached")
        try:
            _prepare_process(context)
            store.clear_reports(stage.key)
            progress = _Progress(store, stage.key, on_report)
            tensors, meta = _function_of(stage)(stage, context, store, progress)
            seconds = time.perf_counter() - start
            store.write(
                stage.key, tensors, {"label": stage.label, "kind": stage.kind, "seconds": seconds, **meta}
            )
        except StageStopped as stop:
            return StageResult(stage.key, "stopped", time.perf_counter() - start, str(stop))
        except Exception as error:  # whatever goes wrong in one trial becomes its row
            status: Status = "out_of_memory" if _is_out_of_memory(error) else "failed"
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
            store.write_failure(stage.key, {"status": status, "reason": reason, "label": stage.label})
            return StageResult(stage.key, status, time.perf_counter() - start, reason)
        finally:
            store.clear_progress(stage.key)
        store.clear_failure(stage.key)
        return StageResult(stage.key, "done", seconds)


def synthesize(stage: Stage, context: RunContext, store: Store, progress: Any) -> Artifact:
    """Images from the teacher alone (or drawn from real data, for the reference that says so)."""
    teacher = teacher_of(stage, context)
    settings = stage.settings
    synthesizer = _synthesizer(settings)
    extra: dict[str, Any] = {}
    if synthesizer.needs_real_images:
        task = task_of(settings["task"], context)
        extra["real_images"] = task.calibration_images(teacher, synthesizer.config.images, settings["seed"])
    with measured(context.device) as cost, no_data([] if extra else list(context.data.values())):
        images, notes = _synthesized(
            lambda attempt: synthesizer.synthesize(
                teacher,
                generator=_generator(settings["seed"], f"synthesize/{attempt}"),
                progress=progress,
                **extra,
            )
        )
    return _stored_images(images), {
        "cost": {"synthesis_seconds": cost.seconds, "peak_memory_mb": cost.peak_memory_mb},
        "synthetic_images": len(images.images),
        "final_losses": dict(images.final_losses),
        "notes": notes,
    }


def quantize(stage: Stage, context: RunContext, store: Store, progress: Any) -> Artifact:
    """A quantized copy of the teacher, from stored images or from images made along the way."""
    from methods.base import CoupledImages, FixedImages, SyntheticImages
    from methods.bits import Bits
    from methods.scope import WIDTH_OF_HEADS

    teacher = teacher_of(stage, context)
    settings = stage.settings
    engine = _engine(settings)
    bits = Bits.parse(settings["bits"])
    notes: list[str] = []
    scope = engine.scope
    remarks = [] if scope == "whole" else [f"neck and heads {WIDTH_OF_HEADS[scope]}"]
    oracle = _Oracle(stage, context) if "oracle" in settings else None
    monitors = _Monitors([*([oracle] if oracle else []), *_watchers(stage, context, store, progress)])

    def attempt_with(attempt: int) -> tuple[nn.Module, SyntheticImages, float]:
        if "images" in stage.parents:
            stored = store.tensors(stage.parents["images"])
            images = SyntheticImages(stored["images"].to(teacher.device), stored["labels"].to(teacher.device))
            source: Any = FixedImages(images)
        else:
            generator = _generator(settings["seed"], f"synthesize/{attempt}")
            source = CoupledImages(_synthesizer(settings), teacher, generator, progress)
        student = engine.quantize(
            teacher,
            source,
            bits,
            generator=_generator(settings["seed"], f"quantize/{attempt}"),
            progress=progress,
            on_epoch=monitors if monitors.all else None,
        )
        if isinstance(source, CoupledImages):
            assert source.latest is not None
            return student, source.latest, source.seconds
        return student, images, 0.0

    with measured(context.device) as cost, no_data(list(context.data.values())):
        if "images" in stage.parents:
            student, images, synthesis_seconds = attempt_with(0)
        else:
            (student, images, synthesis_seconds), notes = _synthesized(attempt_with)
    tensors = {f"student.{name}": value for name, value in student.state_dict().items()}
    meta: dict[str, Any] = {
        "rebuild": {name: settings[name] for name in ("engine", "engine_config", "bits", "scope")},
        "cost": {
            "quantization_seconds": cost.seconds - synthesis_seconds - monitors.seconds,
            "peak_memory_mb": cost.peak_memory_mb,
        },
        "notes": [*remarks, *notes],
    }
    if "images" in stage.parents:
        parent = store.meta(stage.parents["images"])
        meta["cost"] = merged_costs(parent["cost"], meta["cost"])
        meta["notes"] = [*parent["notes"], *meta["notes"]]
        meta["synthetic_images"] = parent["synthetic_images"]
    else:
        tensors |= _stored_images(images)
        meta["cost"]["synthesis_seconds"] = synthesis_seconds
        meta["synthetic_images"] = len(images.images)
    if oracle is not None:
        meta["oracle"] = oracle.best
    return tensors, meta


def evaluate(stage: Stage, context: RunContext, store: Store, progress: Any) -> Artifact:
    """Scores and per-sample outcomes of the student, or of the teacher itself for the reference."""
    import torch

    teacher = teacher_of(stage, context)
    settings = stage.settings
    task = task_of(settings["task"], context)
    facts = task.facts(settings["split"])
    if facts.digest != settings["samples"]:
        raise ValueError(f"the {settings['task']} data changed since the run was planned")
    model, reference, parent_meta = teacher.model, None, {}
    if "student" in stage.parents:
        parent_meta = store.meta(stage.parents["student"])
        model = stored_student(store, stage.parents["student"], teacher, parent_meta)
        reference = store.tensors(stage.parents["reference"])["outputs"].float()
    with measured(context.device) as cost:
        evaluation = task.evaluate(
            model,
            teacher,
            settings["split"],
            EvaluationOptions(reference, context.batch_size, reference is None, progress),
        )
    tensors = {f"outcomes.{name}": values for name, values in evaluation.outcomes.items()}
    if evaluation.outputs is not None:
        tensors["outputs"] = evaluation.outputs.to(getattr(torch, task.outputs_dtype))
    if evaluation.shown is not None:
        tensors["shown"] = evaluation.shown
    seconds = {"evaluation_seconds": cost.seconds, "peak_memory_mb": cost.peak_memory_mb}
    metrics = dict(evaluation.metrics)
    if "oracle" in parent_meta:
        metrics[f"oracle_{task.primary_metric}"] = parent_meta["oracle"]
    return tensors, {
        "metrics": metrics,
        "metric": task.primary_metric,
        "images": len(evaluation.sample_ids),
        "samples": facts.digest,
        "whole": facts.whole,
        "labelled": facts.labelled,
        "cost": {
            **merged_costs(parent_meta.get("cost", {}), seconds),
            "images_per_second": len(evaluation.sample_ids) / max(cost.seconds, 1e-9),
            "synthetic_images": parent_meta.get("synthetic_images", 0),
        },
        "notes": [*parent_meta.get("notes", []), *evaluation.notes],
        "environment": environment(context.device, context.threads),
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


class _Progress:
    """Writes how far a stage is, a few times a second at most, and every value it reports."""

    def __init__(self, store: Store, key: str, on_report: Callable[[], None]) -> None:
        self._store, self._key, self._on_report = store, key, on_report
        self._start = self._last = time.time()
        self._reports: dict[int, float] = {}

    def __call__(self, step: int, total: int, losses: Mapping[str, float]) -> None:
        now = time.time()
        if now - self._last >= _PROGRESS_INTERVAL:
            self._last = now
            self._store.write_progress(
                self._key, {"step": step, "total": total, "losses": dict(losses), "started": self._start}
            )

    def report(self, step: int, value: float) -> None:
        """Say what the stage scores at this step."""
        self._reports[step] = value
        self._store.write_reports(self._key, self._reports)
        self._on_report()

    def heed(self) -> None:
        """Raise StageStopped if somebody asked this stage to stop."""
        if self._store.is_asked_to_stop(self._key):
            raise StageStopped("the search asked it to stop")


class _Monitors:
    """What looks at the student after each epoch; their time is none of the training's."""

    def __init__(self, monitors: list[EpochMonitor]) -> None:
        self.all = monitors
        self.seconds = 0.0

    def __call__(self, epoch: int, student: nn.Module) -> None:
        start = time.perf_counter()
        for monitor in self.all:
            monitor(epoch, student)
        self.seconds += time.perf_counter() - start


def _watchers(stage: Stage, context: RunContext, store: Store, progress: _Progress) -> list[EpochMonitor]:
    """None, or one that reports the student's score every few epochs and stops when asked to."""
    watch = context.watch
    if watch is None:
        return []
    epochs = stage.settings["engine_config"].get("epochs", 1)
    every = -(-epochs // watch.reports)

    def watcher(epoch: int, student: nn.Module) -> None:
        progress.heed()
        if (epoch + 1) % every == 0:
            with data_allowed():
                value = watch.score(student, teacher_of(stage, context), context, store)
            progress.report(epoch + 1, value)
            progress.heed()

    return [watcher]


class _Oracle:
    """Best score over epochs on the report split; measured beside the training, never used by it."""

    def __init__(self, stage: Stage, context: RunContext) -> None:
        self._stage, self._context = stage, context
        self.best = 0.0

    def __call__(self, epoch: int, student: nn.Module) -> None:
        with data_allowed():
            task = task_of(self._stage.settings["oracle"]["task"], self._context)
            teacher = teacher_of(self._stage, self._context)
            scores = task.evaluate(
                student, teacher, "report", EvaluationOptions(batch_size=self._context.batch_size)
            )
        self.best = max(self.best, scores.metrics[task.primary_metric])


def _synthesized(make: Callable[[int], Any]) -> tuple[Any, list[str]]:
    """What `make(attempt)` gives; one more attempt, with the next seed, where synthesis failed."""
    from methods.base import SynthesisFailed

    notes: list[str] = []
    for attempt in range(_SYNTHESIS_ATTEMPTS):
        try:
            return make(attempt), notes
        except SynthesisFailed as error:
            if attempt + 1 == _SYNTHESIS_ATTEMPTS:
                raise SynthesisFailed(f"{error} (tried {_SYNTHESIS_ATTEMPTS} seeds)") from error
            notes.append(f"synthesis was repeated with the next seed: {error}")
    raise AssertionError("unreachable")


def _stored_images(images: SyntheticImages) -> dict[str, Tensor]:
    return {"images": images.images.float(), "labels": images.labels}


def stored_student(store: Store, key: str, teacher: Backbone, meta: Mapping[str, Any]) -> nn.Module:
    """The quantized model of the artifact `key` with its description `meta`, in evaluation mode."""
    from methods.bits import Bits

    settings = meta["rebuild"]
    model = _engine(settings).prepare(teacher, Bits.parse(settings["bits"]))
    state = store.tensors(key)
    prefix = "student."
    model.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
    return model.to(teacher.device).eval()


def merged_costs(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Seconds of both; the higher of the memory peaks."""
    peak = max(before.get("peak_memory_mb", 0.0), now.get("peak_memory_mb", 0.0))
    return {**before, **now, "peak_memory_mb": peak}


def teacher_of(stage: Stage, context: RunContext) -> Backbone:
    """The stage's teacher; raises ValueError when its weights changed since the plan was made."""
    name = stage.settings["backbone"]
    teacher = _load_once(name, context.weights[name], context.device)
    if teacher.weights_sha256 != stage.settings["weights_sha256"]:
        raise ValueError(f"the weights of {name} changed since the run was planned")
    return teacher


@functools.lru_cache(maxsize=1)
def _load_once(name: str, weights: Path, device: str) -> Backbone:
    from backbones import load_backbone

    return load_backbone(name, weights, device)


def task_of(name: str, context: RunContext) -> Any:
    """The task of that name on the context's data."""
    from tasks.registry import get_task

    task_class = get_task(name)
    return task_class(context.data.get(task_class.data_name or ""))


def _synthesizer(settings: Mapping[str, Any]) -> Any:
    from methods.registry import get_method
    from methods.settings import configure

    synthesizer = get_method(settings["synthesizer"]).synthesizer
    assert synthesizer is not None
    return synthesizer(configure(synthesizer.Config, "paper", settings["config"]))


def _engine(settings: Mapping[str, Any]) -> Any:
    from methods.registry import get_engine
    from methods.settings import configure

    engine = get_engine(settings["engine"])
    return engine(configure(engine.Config, "paper", settings["engine_config"]), settings["scope"])


def _generator(seed: int, purpose: str) -> Generator:
    """A CPU generator whose stream depends on the trial's seed and the purpose alone."""
    import torch

    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _function_of(stage: Stage) -> StageFunction:
    if not stage.function:
        return {"synthesize": synthesize, "quantize": quantize, "evaluate": evaluate}[stage.kind]
    module, name = stage.function.split(":")
    return getattr(importlib.import_module(module), name)


def _prepare_process(context: RunContext) -> None:
    """Threads and plug-ins: a worker process starts with neither."""
    import torch

    from methods.registry import load_entry_points, load_plugin

    torch.set_num_threads(context.threads)
    load_entry_points()
    for plugin in context.plugins:
        load_plugin(plugin)


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text
