"""Bit-widths of weights and activations, parsed once: `w4a8` is 4-bit weights with 8-bit activations."""

from __future__ import annotations

import re
from dataclasses import dataclass

from backbones.names import shown

LOWEST, HIGHEST = 2, 8


@dataclass(frozen=True, order=True)
class Bits:
    """A pair of bit-widths, each from 2 to 8, or 32/32 for full precision."""

    weights: int
    activations: int

    @classmethod
    def parse(cls, text: str) -> Bits:
        """Read `w4a4`, `W4A8` or `fp32`; raises ValueError that names what is allowed."""
        if text.lower() == "fp32":
            return FULL_PRECISION
        match = re.fullmatch(r"w([0-9]{1,9})a([0-9]{1,9})", text.strip().lower())
        if match is None:
            raise ValueError(
                f"'{shown(text)}' is not a bit-width: write w4a4 (weights 4 bits, activations 4 bits)"
            )
        weights, activations = int(match[1]), int(match[2])
        for what, value in (("weights", weights), ("activations", activations)):
            if not LOWEST <= value <= HIGHEST:
                raise ValueError(
                    f"'{shown(text)}' asks for {value}-bit {what}: {LOWEST} to {HIGHEST} are supported"
                )
        return cls(weights, activations)

    def __str__(self) -> str:
        return "fp32" if self == FULL_PRECISION else f"w{self.weights}a{self.activations}"


FULL_PRECISION = Bits(32, 32)
