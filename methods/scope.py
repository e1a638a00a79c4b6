"""How much of a model is quantized: all of it, neck and heads at 8 bits, or its backbone alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from backbones.base import Backbone
from methods.bits import Bits

Scope = Literal["whole", "heads_8bit", "backbone"]
"""`whole`: everything at the target bits; `heads_8bit`: neck and heads, with what they read, at 8 bits;
`backbone`: these in full precision. The head of a classifier is its classifier."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
WIDTH_OF_HEADS: dict[Scope, str] = {
    "whole": "at the target bits",
    "heads_8bit": "at 8 bits",
    "backbone": "in full precision",
}
"""For protocols."""


def bits_by_name(teacher: Backbone, bits: Bits, scope: Scope) -> Callable[[str], Bits | None]:
    """A function from a module's name to its bits; None where it stays in full precision.

    bits_of = bits_by_name(teacher, Bits(4, 4), "heads_8bit")
    bits_of("blocks.0.attn.qkv"), bits_of("head")  # w4a4, w8a8
    """
    of_heads: dict[Scope, Bits | None] = {"whole": bits, "heads_8bit": Bits(8, 8), "backbone": None}
    return lambda name: of_heads[scope] if teacher.is_of_heads(name) else bits
