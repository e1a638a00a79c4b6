from __future__ import annotations

import pytest

from harness.suites.suite import Suite, engines_of, merged
from methods.bits import Bits
from methods.registry import get_method

SUITE = Suite("mine", "digits", ("digits_vit",), (Bits(4, 4),), ("psaq_vit", "maskaq"))


@pytest.mark.parametrize(
    ("method", "engines"),
    [("psaq_vit", ("psaq_ptq",)), ("maskaq", ("lsq_qat",)), ("real_data", ("psaq_ptq", "lsq_qat"))],
)
def test_a_method_runs_with_its_own_engine_and_an_anchor_with_those_of_the_others(method, engines):
    assert engines_of(SUITE, get_method(method)) == engines


def test_settings_are_merged_one_by_one_and_those_of_an_engine_too():
    before = {"images": 3, "lsq_qat": {"epochs": 1, "batch_size": 2}}
    after = merged(before, {"images": 4, "lsq_qat": {"epochs": 5}})
    assert after == {"images": 4, "lsq_qat": {"epochs": 5, "batch_size": 2}}
    assert merged(before, {"images": {"a": 1}})["images"] == {"a": 1}
