"""Soft labels: several classes at once, over a random background. SARDFQ's SL."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

_LOW, _HIGH = 5.0, 10.0
"""Range of the logits of the classes an image is made for (epsilon 1 and 2)."""


def soft_labels(wanted: Tensor, *, generator: Generator) -> Tensor:
    """softmax(Z) for every row of `wanted` (n, classes), bool: (n, classes) float32 that sum to 1.

    Z is uniform in [5, 10) for wanted classes and standard normal for the others.
    """
    background = torch.randn(wanted.shape, generator=generator)
    raised = _LOW + (_HIGH - _LOW) * torch.rand(wanted.shape, generator=generator)
    return torch.where(wanted, raised, background).softmax(dim=1)
