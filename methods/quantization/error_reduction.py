"""ERQ's two closed-form steps for one layer: weights that expect quantized inputs, then rounding by halves.

Source: zysxmu/ERQ (ICML 2024; arXiv 2407.06794), released code. With the quantized input A = [Q(x), 1] and
the weights and bias W = [w, b] of a layer, whose full-precision output is O:

    fit_to_quantized_inputs ("Aqer")   W <- W + ((A'A + ridge)^-1 A'(O - A W'))'
    round_by_halves ("Wqer")           half of the columns that are left is put on the grid, and the others
                                       take up what that did to the output, until only the bias is left

Both need the moments A'A and A'O alone, which add up over batches, so that many images take no more memory
than few.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """What the two steps need of a layer's inputs and outputs, summed over tokens, in float64."""

    gram: Tensor
    """A'A, (in + 1, in + 1); the last row and column belong to the bias."""
    cross: Tensor
    """A'O, (in + 1, out)."""
    tokens: int
    """Rows of A."""

    @classmethod
    def of(cls, quantized_input: Tensor, output: Tensor) -> Moments:
        """Of inputs (..., in) and outputs (..., out)."""
        rows = quantized_input.flatten(0, -2).double()
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        return cls(rows.T @ rows, rows.T @ output.flatten(0, -2).double(), len(rows))

    def add(self, other: Moments) -> None:
        """Take in the moments of more tokens."""
        self.gram += other.gram
        self.cross += other.cross
        self.tokens += other.tokens


@dataclass(frozen=True)
class EntryGrids:
    """The levels of each entry of a weight matrix; the tensors broadcast to (out, in), in float64."""

    scale: Tensor
    zero_point: Tensor
    bits: int

    def errors(self, weight: Tensor, columns: slice) -> tuple[Tensor, Tensor, Tensor]:
        """What rounding to the nearest level, down and up would add to these columns of the weight."""
        scale, zero_point = ((p if p.shape[1] == 1 else p[:, columns]) for p in (self.scale, self.zero_point))
        part = weight[:, columns]
        steps = part / scale
        low, high = -zero_point, 2**self.bits - 1 - zero_point
        nearest, down, up = (
            torch.minimum(torch.maximum(whole, low), high) * scale - part
            for whole in (steps.round(), steps.floor(), steps.ceil())
        )
        return nearest, down, up


def fit_to_quantized_inputs(weight: Tensor, moments: Moments, ridge: float) -> Tensor:
    """The weights with bias (out, in + 1) that make of quantized inputs what `weight` makes of exact ones."""
    error = moments.cross - moments.gram @ weight.T
    return weight + _solve(moments.gram, ridge, error).T


def round_by_halves(
    weight: Tensor, grids: EntryGrids, moments: Moments, ridge: float, refinement_steps: int
) -> Tensor:
    """The weights with bias (out, in + 1), all columns but the bias on their grids.

    `refinement_steps` bounds how many entries of each row and half change their direction of rounding.
    """
    weight = weight.clone()
    gram, end = moments.gram, weight.shape[1]
    mean = gram[:, -1] / moments.tokens
    start = 0
    while end - start > 1:
        middle = start + (end - start) // 2
        now, later = slice(start, middle), slice(middle, end)
        error, down, up = grids.errors(weight, now)
        # The code's mean' mean + cov of the tokens, cov without bias.
        energy = (gram[now, now] - mean[now, None] * mean[now]) / max(1, moments.tokens - 1)
        error = refined(error, down, up, energy, refinement_steps)
        weight[:, now] += error
        weight[:, later] -= _solve(gram[later, later], ridge, gram[later, now] @ error.T).T
        start = middle
    return weight


def refined(error: Tensor, down: Tensor, up: Tensor, energy: Tensor, steps: int) -> Tensor:
    """Rounding errors d (out, n) whose d E d' is at most that of `error`, in every row.

    One entry after another, that of the largest gradient which points to zero, goes to the nearer of its
    errors `down` and `up` from d - gradient; a row ends where that does not help.
    """
    error = error.clone()
    gradient = 2 * error @ energy
    curvature = energy.diagonal()
    rows = torch.arange(len(error), device=error.device)
    going = torch.ones(len(error), dtype=torch.bool, device=error.device)
    for _ in range(steps):
        eligible = (error * gradient > 0) & going[:, None]
        size, at = torch.where(eligible, gradient.abs(), -1.0).max(dim=1)
        old = error[rows, at]
        wanted = old - gradient[rows, at]
        lower, upper = down[rows, at], up[rows, at]
        new = torch.where((lower - wanted).abs() <= (upper - wanted).abs(), lower, upper)
        change = new - old
        growth = change * gradient[rows, at] + change.square() * curvature[at]
        going = (size >= 0) & (change != 0) & (growth <= 0)
        if not going.any():
            break
        change = torch.where(going, change, 0.0)
        error[rows, at] += change
        gradient += 2 * change[:, None] * energy[at]
    return error


def _solve(gram: Tensor, ridge: float, right: Tensor) -> Tensor:
    """(gram + ridge I)^-1 right."""
    ridged = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve(right, torch.linalg.cholesky(ridged))
