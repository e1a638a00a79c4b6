"""Settings of the training loop, for the Config of any engine that trains a student with it.

    @dataclass(frozen=True)
    class MyEngineConfig(TrainingSettings):
        rounding: str = setting("nearest", "How weights are rounded.", choices=("nearest", "learned"))

They stand apart from the loop (`methods.engines.training`), which imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from methods.settings import setting


@dataclass(frozen=True)
class TrainingSettings:
    """Schedule, optimizer, distillation and views; defaults are those of MaskAQ's released code."""

    epochs: int = setting(200, "Passes over the images.", low=1, high=400, tunable=False, fast=10, smoke=1)
    warmup_epochs: int = setting(
        2, "First epochs without optimizer steps.", low=0, high=20, tunable=False, fast=0, smoke=0
    )
    batch_size: int = setting(16, "Images per step, at most.", low=1, high=256)
    learning_rate: float = setting(1e-3, "SGD's learning rate at the start.", low=1e-5, high=1e-1, log=True)
    eta_min_fraction: float = setting(0.01, "Last learning rate over the first.", low=0.0, high=1.0)
    momentum: float = setting(0.9, "Nesterov momentum.", low=0.0, high=0.99)
    weight_decay: float = setting(0.0, "SGD's weight decay.", low=0.0, high=1e-2)
    temperature: float = setting(5.0, "Temperature of the logit distillation.", low=1.0, high=20.0)
    distillation: Literal["kl", "adadfq"] = setting(
        "kl",
        "Distillation of logits: kl, their divergence, or adadfq, the entropy of their difference (AdaDFQ).",
        choices=("kl", "adadfq"),
        tunable=False,
    )
    head_distillation: Literal["none", "structural", "masked"] = setting(
        "structural",
        "Distillation of attention outputs: none, structural (MimiQ) or masked (MaskAQ).",
        choices=("none", "structural", "masked"),
    )
    head_coefficient: float = setting(10.0, "Weight of the head distillation.", low=0.0, high=100.0)
    masked_ratio: float = setting(0.1, "Share of tokens that count more under masked.", low=0.0, high=1.0)
    masked_weight: float = setting(2.0, "How much those tokens count.", low=1.0, high=10.0)
    augment: bool = setting(True, "Whether training images are cropped, flipped, recoloured and blurred.")
    crop_scale_min: float = setting(
        0.08, "Smallest random crop's share of the image area.", low=0.01, high=1.0
    )
