"""Full precision: the row every quantized row is measured against. No images, no engine."""

from __future__ import annotations

from methods.base import Method

METHOD = Method(
    name="fp32",
    synthesizer=None,
    engine=None,
    title="Full precision",
    citation="The backbone's own weights, see `harness list backbones`.",
    published_name="FP baseline",
)
