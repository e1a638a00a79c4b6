"""Trains the shipped digits models: `python -m backbones.digits.train_classifiers digits_vit --output FILE`.

AdamW with a warm-up and a cosine, light affine augmentation, the last epoch is the result. CPU kernels
differ between machines, so a run regenerates weights of the same quality, not the same bits.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.base import BackboneSpec
from backbones.digits.images import Digits, load_digits_split
from backbones.loading import build_model
from backbones.preprocessing.pixels import normalized
from backbones.specs import BUILT_IN

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

_BATCH = 50
_PEAK_RATE = 2e-3
_WARM_UP_SHARE = 0.1
_WEIGHT_DECAY = 0.05
_LABEL_SMOOTHING = 0.1
_MAX_ROTATION = math.radians(12)
_MAX_SCALING = 0.12
_MAX_SHIFT = 0.12
"""Largest shift as a share of half the image side, so just under one pixel of 16."""


def train(spec: BackboneSpec, digits: Digits, *, epochs: int, seed: int) -> nn.Module:
    """Train the model of `spec` from a seeded start and return it in evaluation mode."""
    import torch
    import torch.nn.functional as F

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build_model(spec).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, weight_decay=_WEIGHT_DECAY)
    steps = epochs * (len(digits.labels) // _BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    for _ in range(epochs):
        order = torch.randperm(len(digits.labels), generator=generator)
        for batch in torch.split(order, _BATCH):
            images = normalized(augmented(digits.images[batch], generator=generator), spec.data)
            loss = F.cross_entropy(model(images), digits.labels[batch], label_smoothing=_LABEL_SMOOTHING)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return model.eval()


def augmented(images: Tensor, *, generator: Generator) -> Tensor:
    """Rotate, scale and shift each image (B, C, H, W) a little; pixels from outside are 0."""
    import torch
    import torch.nn.functional as F

    angle, zoom, right, down = 2 * torch.rand(4, len(images), generator=generator) - 1
    angle, zoom = angle * _MAX_ROTATION, 1 + zoom * _MAX_SCALING
    top = torch.stack([zoom * angle.cos(), -zoom * angle.sin(), right * _MAX_SHIFT], dim=1)
    bottom = torch.stack([zoom * angle.sin(), zoom * angle.cos(), down * _MAX_SHIFT], dim=1)
    grid = F.affine_grid(torch.stack([top, bottom], dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def top1_percent(model: nn.Module, digits: Digits, spec: BackboneSpec) -> float:
    """Share of right answers, in percent."""
    import torch

    with torch.inference_mode():
        answers = model(normalized(digits.images, spec.data)).argmax(dim=1)
    return 100 * float((answers == digits.labels).float().mean())


def _rate(done: float) -> float:
    """Learning rate over its peak when this share of the steps is done."""
    if done < _WARM_UP_SHARE:
        return done / _WARM_UP_SHARE
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP_SHARE) / (1 - _WARM_UP_SHARE)))


def main(arguments: list[str] | None = None) -> None:
    """Train one model, save it and print its accuracy on the report split."""
    import safetensors.torch

    parser = argparse.ArgumentParser(prog="python -m backbones.digits.train_classifiers", description=__doc__)
    parser.add_argument("backbone", choices=[n for n, s in BUILT_IN.items() if s.dataset == "digits"])
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    spec = BUILT_IN[options.backbone]
    model = train(spec, load_digits_split("train"), epochs=options.epochs, seed=options.seed)
    safetensors.torch.save_file(model.state_dict(), options.output)
    print(f"{spec.name}: top-1 {top1_percent(model, load_digits_split('report'), spec):.2f} % on report")


if __name__ == "__main__":
    main()
