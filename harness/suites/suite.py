"""A suite: methods x backbones x bit-widths x seeds on one task. Data alone; its siblings read and check it.

description: what the suite is for
task: imagenet
backbones: [deit_tiny, deit_small]
bits: [w4a4]
methods: [psaq_vit, mimiq, maskaq]     # the anchors fp32, gaussian_noise, real_data come by themselves
seeds: [0, 1, 2]
budget: fast                           # paper | fast | smoke
track: published                       # published: each method with its own engine
engines: []                            # controlled: every method with each of these
scope: whole                           # whole | heads_8bit | backbone: what is quantized of a model
precision: exact                       # exact | fast: TF32 on a GPU, and no care that bits repeat
overrides:
  lsq_qat: {epochs: 20}                # an engine, wherever it is used
  maskaq: {iterations: 200, lsq_qat: {epochs: 30}}
variants:                              # more rows of a method, each with some settings changed
  maskaq: [{alignment_weight: 0}, {lsq_qat: {head_distillation: none}}]
                                       # `tuned: {...}` in a variant says how a search found it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from methods.base import Method
from methods.bits import Bits
from methods.registry import get_method
from methods.scope import Scope

ANCHORS = ("fp32", "gaussian_noise", "real_data")
"""Reference rows that every suite has without asking."""
TUNED = "tuned"
"""Key of a variant, beside its settings, that says how a search found them."""
VERDICT, RECOMMENDED = "verdict", "recommended"
"""Keys inside it: what the search's final comparison measured, as a sentence, and what to use after it."""
RECOMMENDED_FOUND, RECOMMENDED_DEFAULTS = "these settings", "the defaults"
"""What may be recommended."""
LOWEST_SEED, HIGHEST_SEED = -(2**63), 2**63 - 1
"""What torch takes as a seed."""
_DEFAULT_ANCHOR_ENGINE = "psaq_ptq"
"""Engine of the noise and real rows in a suite that has no method with an engine of its own."""

Overrides = Mapping[str, Mapping[str, Any]]
"""Method or engine -> its changed settings; a method's may hold an engine's in a mapping of their own."""
Track = Literal["published", "controlled"]
Precision = Literal["exact", "fast"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Suite:
    """What is compared, and how: one task, with every combination of the lists below."""

    name: str
    task: str
    backbones: tuple[str, ...]
    bits: tuple[Bits, ...]
    methods: tuple[str, ...]
    """Without the anchors."""
    seeds: tuple[int, ...] = (0,)
    budget: str = "paper"
    track: Track = "published"
    engines: tuple[str, ...] = ()
    scope: Scope = "whole"
    """What is quantized: everything, neck and heads at 8 bits, or the backbone alone."""
    precision: Precision = "exact"
    """How a GPU computes; `fast` rows are ranked apart."""
    overrides: Overrides = field(default_factory=dict)
    variants: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    """Method -> settings of its further rows, on top of the overrides."""
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Method -> how a search found its overrides: trials, objective and so on."""
    oracle: bool = False
    """Also score every epoch on the report split, for the marked 'oracle' column."""
    description: str = ""
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Field, such as `backbones` -> values of the suite's own list that a request narrowed it away from."""


def engines_of(suite: Suite, method: Method) -> tuple[str, ...]:
    """The suite's engines; else the method's own; for an anchor those of the suite's methods."""
    if suite.engines:
        return suite.engines
    if method.engine is not None:
        return (method.engine,)
    own = [get_method(name).engine for name in suite.methods]
    return tuple(dict.fromkeys(engine for engine in own if engine)) or (_DEFAULT_ANCHOR_ENGINE,)


def merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with changes on top; an engine's nested settings are merged, not replaced."""
    result = dict(fields)
    for name, value in changes.items():
        before = result.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            result[name] = {**before, **value}
        else:
            result[name] = value
    return result
