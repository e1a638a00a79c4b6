"""What `harness compare` says of two rows."""

from __future__ import annotations

from results.grouping import gathered
from results.report.comparing import pairs_of_methods, text_of
from tests.results.fakes import record


def test_seconds_of_two_devices_are_not_added():
    apart = {"synthesis_seconds": "a GPU", "quantization_seconds": "cpu"}
    rows = gathered([record("maskaq", cost_devices=apart), record("psaq_vit")])
    assert "from scratch: A –, B 65s" in text_of(pairs_of_methods(rows, "maskaq", "psaq_vit"))
