"""What share of the images' gradient each loss term makes: looked at now and then, never changing them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from methods.base import GradientShares

if TYPE_CHECKING:
    from torch import Tensor

_LOOKS = 10
"""Looks spread over the iterations; the first and the last are always looked at."""
_LEAST_BETWEEN = 25
"""Iterations between two looks, at least: a look costs a backward pass for every term."""


class GradientWatch:
    """Looks at some iterations of one optimisation; its `shares` tell what it saw.

    A share is |g_term| / |g_total|, the norms of two gradients with respect to the same images, weights
    included. Terms that pull against each other have shares that add up to more than 1.
    """

    def __init__(self, iterations: int) -> None:
        self._iterations = iterations
        self._every = max(_LEAST_BETWEEN, math.ceil(iterations / _LOOKS))
        self._seen: dict[int, Tensor] = {}
        self._names: tuple[str, ...] = ()

    def look(self, iteration: int, terms: Mapping[str, Tensor], images: Tensor) -> None:
        """Take the norms where this iteration's turn has come; the terms' graph is kept for their own step.

        Nothing is read from the device before `shares`.
        """
        import torch

        last = iteration + 1 == self._iterations
        if len(terms) < 2 or not (last or iteration == 0 or (iteration + 1) % self._every == 0):
            return
        gradients = [_gradient(term, images) for term in terms.values()]
        total = torch.stack(gradients).sum(dim=0).norm()
        norms = torch.stack([gradient.norm() for gradient in gradients])
        self._names = tuple(terms)
        self._seen[iteration + 1] = norms / total.clamp(min=torch.finfo(total.dtype).tiny)

    def shares(self) -> GradientShares:
        """What was seen; nothing where there is one term, which has all of the gradient."""
        rows = [seen.tolist() for seen in self._seen.values()]
        columns = map(list, zip(*rows, strict=True))
        return GradientShares(tuple(self._seen), dict(zip(self._names, columns, strict=True)))


def _gradient(term: Tensor, images: Tensor) -> Tensor:
    """With respect to the images; 0 where the term does not depend on them."""
    import torch

    if not term.requires_grad:
        return torch.zeros_like(images)
    (found,) = torch.autograd.grad(term, images, retain_graph=True, allow_unused=True)
    return torch.zeros_like(images) if found is None else found
