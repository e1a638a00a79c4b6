"""The full-precision gate: quantized rows run only on weights that are what they claim to be.

On a whole validation set our full-precision score must lie within the metric's tolerance of the reference. A
subset has sampling noise and may be easier than the whole, so it refuses only what lies clearly below the
reference. Agreement with the teacher has no gate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from backbones.base import BackboneSpec
from harness.stages.facts import EvaluationFacts
from results.metrics import metric_of

_STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class GateResult:
    """Whether the weights pass, and the sentence that says why (empty when there is nothing to say)."""

    passed: bool
    message: str = ""


def full_precision_gate(spec: BackboneSpec, reference: EvaluationFacts) -> GateResult:
    """Compare the reference artifact's ranking metric (percent) with the specification's.

    The noise of a subset is three standard errors of a mean over its images. Values from 0 to 1 with mean m
    vary by m (1 - m) at most: exactly that for right and wrong, and a bound for the AP of single images.
    """
    metric = metric_of(reference.metric)
    measured, expected = reference.metrics.get(metric.name), spec.reference_score
    tolerance, images = metric.tolerance, reference.images
    if tolerance is None or measured is None or expected is None:
        return GateResult(True)
    if reference.whole:
        passed = abs(measured - expected) <= tolerance + 1e-9
    else:
        share = expected / 100
        tolerance += _STANDARD_ERRORS * 100 * math.sqrt(share * (1 - share) / images)
        passed = measured >= expected - tolerance
    said = f"{spec.name}: full-precision {metric.spoken} is {measured:.2f} on {images} images"
    if not passed:
        return GateResult(
            False,
            f"{said}, the reference is {expected:.2f} ({spec.reference_source}), allowed are "
            f"{tolerance:.2f} points: check that --weights {spec.name}=FILE holds {spec.hub_repository} and "
            "that the data are complete; --allow-fp-mismatch runs all the same and says so in the notes",
        )
    if not reference.whole and measured > expected + tolerance:
        return GateResult(
            True, f"{said}, above the reference {expected:.2f}: this subset is easier than the whole set"
        )
    return GateResult(True)
