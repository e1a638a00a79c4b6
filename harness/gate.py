"""The full-precision gate: quantized rows run only on weights that are what they claim to be.

On a whole validation set our full-precision top-1 must lie within 0.15 points of the reference. A subset has
sampling noise and may be easier than the whole, so it refuses only what lies clearly below the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backbones.base import BackboneSpec

TOLERANCE = 0.15
"""Points of top-1 on the whole validation set."""
_STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class GateResult:
    """Whether the weights pass, and the sentence that says why (empty when there is nothing to say)."""

    passed: bool
    message: str = ""


def full_precision_gate(spec: BackboneSpec, reference: Mapping[str, Any]) -> GateResult:
    """Compare the reference artifact's top-1 (percent) with the specification's."""
    measured = reference["metrics"].get("top1")
    expected, images = spec.reference_score, reference["images"]
    if measured is None or expected is None:
        return GateResult(True)
    if reference["whole"]:
        tolerance = TOLERANCE
        passed = abs(measured - expected) <= tolerance + 1e-9
    else:
        share = expected / 100
        tolerance = TOLERANCE + _STANDARD_ERRORS * 100 * math.sqrt(share * (1 - share) / images)
        passed = measured >= expected - tolerance
    said = f"{spec.name}: full-precision top-1 is {measured:.2f} on {images} images"
    if not passed:
        return GateResult(
            False,
            f"{said}, the reference is {expected:.2f} ({spec.reference_source}), allowed are "
            f"{tolerance:.2f} points: check that --weights {spec.name}=FILE holds {spec.hub_repository} and "
            "that the data are complete; --allow-fp-mismatch runs all the same and says so in the notes",
        )
    if not reference["whole"] and measured > expected + tolerance:
        return GateResult(
            True, f"{said}, above the reference {expected:.2f}: this subset is easier than the whole set"
        )
    return GateResult(True)
