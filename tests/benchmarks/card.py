"""What a GPU does of the project's work: milliseconds an iteration beside a plain pass, and images a second.

    python -m tests.benchmarks.card [--backbones deit_tiny,deit_base] [--methods maskaq] [--iterations 40]

Each method runs its own loop twice, with few and with more iterations; the difference is what an iteration
takes. Beside it stands a plain pass, forward and backward to the image, of the same model and batch, and the
same at a batch that fills the card. `share` is what the plain arithmetic of an iteration would take at the
measured rate of float32 matrix products, over what the iteration takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from backbones import SPECS, Backbone, find_weights, load_backbone
from backbones.loading import build_model
from harness.stages.cost import environment, measured
from harness.stages.precision import EXACT, FAST, computing
from methods.base import FixedImages, QuantizationTask, SynthesisTask, SyntheticImages
from methods.bits import Bits
from methods.registry import get_engine, get_method
from methods.settings import configure
from methods.testing.models import seeded

_GMACS = {"deit_tiny": 1.26, "deit_small": 4.61, "deit_base": 17.58}
"""Of one image forward (DeiT, table 1), in billions of multiply-adds."""
_METHODS = ("psaq_vit", "mimiq", "maskaq", "psaq_vit_v2", "sardfq", "smi", "clamp_vit")
_FULL = 256
_WARM = 4


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured step."""

    what: str
    precision: str
    images: int
    milliseconds: float
    images_per_second: float
    share: float
    peak_mb: float


def teacher_on(name: str, device: str) -> Backbone:
    """With its weights where they are at hand, else with random ones."""
    try:
        return load_backbone(name, find_weights(SPECS[name], download=False), device)
    except Exception:
        model = build_model(SPECS[name]).eval().requires_grad_(False).to(device)
        return Backbone(SPECS[name], model, "untrained")


def random_images(teacher: Backbone, count: int) -> torch.Tensor:
    """Noise of the teacher's size, on its device."""
    return torch.randn(count, *teacher.data.input_size, device=teacher.device)


def seconds_of(call: Callable[[], object], device: str) -> tuple[float, float]:
    """Wall-clock of a call, the device's work included, and its memory peak in MiB."""
    with measured(device) as cost:
        call()
    return cost.seconds, cost.peak_memory_mb


def matmul_rate(device: str) -> float:
    """Float32 operations per second of a large matrix product, at the precision that is set."""
    size = 4096 if device != "cpu" else 512
    left, right = (torch.randn(size, size, device=device) for _ in range(2))
    for _ in range(3):
        left @ right
    seconds, _ = seconds_of(lambda: [left @ right for _ in range(10)], device)
    return 10 * 2 * size**3 / seconds


def plain_pass(teacher: Backbone, batch: int, passes: int = 5) -> float:
    """Seconds of a forward and backward to the image."""
    images = random_images(teacher, batch).requires_grad_(True)
    labels = torch.zeros(batch, dtype=torch.long, device=teacher.device)

    def run() -> None:
        loss = torch.nn.functional.cross_entropy(teacher.model(images), labels)
        torch.autograd.grad(loss, [images])

    run()
    seconds, _ = seconds_of(lambda: [run() for _ in range(passes)], str(teacher.device))
    return seconds / passes


def synthesis_step(teacher: Backbone, name: str, iterations: int) -> tuple[int, float, float]:
    """Batch, seconds an iteration and memory peak of a method's own loop on one of its batches."""
    maker = get_method(name).synthesizer
    assert maker is not None
    batch = configure(maker.Config, "paper", {}).batch_size
    student = None
    if maker.needs_student:
        images = random_images(teacher, 16)
        student = trained(teacher, images, epochs=1)
    taken = {}
    for count in (_WARM, _WARM, _WARM + iterations):  # the first time kernels are loaded and chosen
        known = {field.name for field in dataclasses.fields(maker.Config)}
        sizes: dict[str, Any] = {"images": batch, "iterations": count, "refresh_iterations": count}
        config = configure(maker.Config, "paper", {k: v for k, v in sizes.items() if k in known})
        task = SynthesisTask(teacher, seeded(), student=student, epoch=30 if student is not None else 0)
        if student is not None:
            labels = torch.zeros(batch, dtype=torch.long, device=teacher.device)
            start = random_images(teacher, batch)
            task = dataclasses.replace(task, previous=SyntheticImages(start, labels))
        taken[count] = seconds_of(lambda c=config, t=task: maker(c).synthesize(t), str(teacher.device))
    (few, _), (more, peak) = taken.values()
    return batch, (more - few) / iterations, peak


def trained(teacher: Backbone, images: torch.Tensor, epochs: int) -> torch.nn.Module:
    """A W4A4 student of the training engine after so many epochs."""
    engine = get_engine("lsq_qat")
    labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
    source = FixedImages(SyntheticImages(images, labels))
    config = configure(engine.Config, "fast", {"epochs": epochs, "warmup_epochs": 0})
    return engine(config).quantize(QuantizationTask(teacher, source, Bits(4, 4), seeded()))


def training_step(teacher: Backbone, epochs: int = 6) -> tuple[int, float, float]:
    """Batch, seconds a step and memory peak of the training engine."""
    images = random_images(teacher, 64)
    trained(teacher, images, 1)
    few, _ = seconds_of(lambda: trained(teacher, images, 1), str(teacher.device))
    more, peak = seconds_of(lambda: trained(teacher, images, 1 + epochs), str(teacher.device))
    return 16, (more - few) / (4 * epochs), peak


def rows_of(name: str, device: str, precision: str, iterations: int, methods: list[str]) -> Iterator[Row]:
    """Every step on one backbone."""
    teacher = teacher_on(name, device)
    rate, per_image = matmul_rate(device), 2e9 * _GMACS.get(name, 0.0)

    def row(what: str, batch: int, seconds: float, passes: float, peak: float = 0.0) -> Row:
        share = batch * per_image * passes / rate / seconds
        return Row(f"{what} {name}", precision, batch, 1e3 * seconds, batch / seconds, share, peak)

    for batch in (16, 32, _FULL if device != "cpu" else 16):
        yield row("plain pass", batch, plain_pass(teacher, batch), 2)
    with torch.no_grad():
        images = random_images(teacher, _FULL if device != "cpu" else 16)
        teacher.model(images)
        seconds, _ = seconds_of(lambda: [teacher.model(images) for _ in range(5)], device)
    yield row("answer, full precision", len(images), seconds / 5, 1)
    student = trained(teacher, images[:16], 1)
    with torch.no_grad():
        student(images)
        seconds, _ = seconds_of(lambda: [student(images) for _ in range(5)], device)
    yield row("answer, W4A4 student", len(images), seconds / 5, 1)
    batch, seconds, peak = training_step(teacher)
    yield row("training step", batch, seconds, 4, peak)
    for method in methods:
        batch, seconds, peak = synthesis_step(teacher, method, iterations)
        passes = 4 if get_method(method).synthesizer.needs_student else 2  # type: ignore[union-attr]
        yield row(method, batch, seconds, passes, peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", default="deit_tiny,deit_base")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--methods", default=",".join(_METHODS))
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--precisions", default=f"{EXACT},{FAST}")
    parser.add_argument("--json", help="file for the rows")
    options = parser.parse_args()
    found: list[Row] = []
    began = time.perf_counter()
    for precision in options.precisions.split(","):
        with computing(precision, options.device):
            where = environment(options.device, torch.get_num_threads())
            rate = matmul_rate(options.device) / 1e12
            print(f"{where.as_text()}; matrix products at {rate:.1f} TFLOP/s", flush=True)
            for name in options.backbones.split(","):
                found += rows_of(
                    name, options.device, precision, options.iterations, options.methods.split(",")
                )
    table = Table(title="a card's work", title_justify="left")
    for column in ("what", "precision", "batch", "ms", "images/s", "share", "peak MiB"):
        table.add_column(column)
    for one in found:
        table.add_row(
            one.what,
            one.precision,
            str(one.images),
            f"{one.milliseconds:.1f}",
            f"{one.images_per_second:,.0f}",
            f"{one.share:.2f}",
            f"{one.peak_mb:,.0f}",
        )
    Console(width=100).print(table)
    print(f"in {time.perf_counter() - began:.0f} s")
    if options.json:
        with open(options.json, "w") as file:
            json.dump([dataclasses.asdict(one) for one in found], file)


if __name__ == "__main__":
    main()
