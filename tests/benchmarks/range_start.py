"""Where LSQ's ranges start: a W4A4 student before any training, by start and draw.

    python -m tests.benchmarks.range_start --weights deit_tiny.safetensors --data IMAGENET

Prints top-1 on the tuning split and the KL divergence from the full-precision answers, in nats, as in
docs/design/range-start-of-lsq.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from backbones import Backbone, load_backbone
from methods.base import FixedImages, QuantizationTask, SyntheticImages
from methods.bits import Bits
from methods.engines.lsq_qat import LsqQat, LsqQatConfig
from tasks.base import EvaluationOptions
from tasks.imagenet import ImageNet

IMAGES = 50
SEEDS = (0, 1, 2)


class _Scored(Exception):
    """Ends a training whose ranges have their start; its texts are the metrics."""


def scored(teacher: Backbone, task: ImageNet, outputs: Tensor, start: str, seed: int) -> Mapping[str, float]:
    """Metrics of the student whose ranges start so, from the images and views that `seed` draws."""

    def stop(epoch: int, student: nn.Module) -> None:
        options = EvaluationOptions(reference=outputs)
        raise _Scored(task.evaluate(student, teacher, "tune", options).metrics)

    images, labels = task.calibration_images(teacher, IMAGES, seed)
    source = FixedImages(SyntheticImages(images, labels))
    generator = torch.Generator().manual_seed(seed)
    # An epoch of warm-up shows the student its images, without a step.
    engine = LsqQat(LsqQatConfig(epochs=2, warmup_epochs=1, range_start=start))
    try:
        engine.quantize(QuantizationTask(teacher, source, Bits(4, 4), generator, on_epoch=stop))
    except _Scored as ended:
        metrics: Mapping[str, float] = ended.args[0]
        return metrics
    raise AssertionError("the training ended before its first epoch was looked at")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="the backbone's weights")
    parser.add_argument("--data", type=Path, required=True, help="ImageNet, whole or a subset")
    parser.add_argument("--backbone", default="deit_tiny")
    options = parser.parse_args()
    teacher, task = load_backbone(options.backbone, options.weights), ImageNet(options.data)
    outputs = task.evaluate(teacher.model, teacher, "tune", EvaluationOptions()).outputs
    for start in ("released", "searched"):
        for seed in SEEDS:
            found = scored(teacher, task, outputs, start, seed)
            print(f"{start}, draw {seed}: top-1 {found['top1']:.1f}, KL {found['kl']:.2f}", flush=True)


if __name__ == "__main__":
    main()
