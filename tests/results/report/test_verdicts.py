"""Measured beside published: each verdict, and everything that makes two numbers incomparable."""

from __future__ import annotations

import pytest

from results.grouping import gathered
from results.published import PublishedNames
from results.report.verdicts import verdict_of
from results.statistics import Interval
from tests.results.fakes import record

PAPER = {"engine": {"batch_size": 32, "mode": "faithful"}}
NAMES = PublishedNames(
    methods={
        ("psaq_vit", "psaq_ptq"): "PSAQ-ViT",
        ("maskaq", "lsq_qat"): "MaskAQ",
        ("sardfq", "block_reconstruction"): "SARDFQ",
    },
    backbones={"deit_tiny": "DeiT-T"},
    settings={("maskaq", "lsq_qat"): PAPER},
)


def verdict(method: str = "maskaq", *, top1: float = 53.10, fp: float = 72.21, **changes):
    """MaskAQ on DeiT-T at W4A4 as published (53.10), with what is changed; its interval is +- 0.4."""
    facts = {
        "engine": "lsq_qat",
        "budget": "paper",
        "settings": PAPER,
        "images": 50_000,
        "outcomes": {},
        "metrics": {"top1": top1},
    }
    (row,) = gathered([record(method, **{**facts, **changes})])
    return verdict_of(row, NAMES, Interval(top1 - 0.4, top1 + 0.4), fp)


@pytest.mark.parametrize(
    ("top1", "judgement"), [(53.10, "reproduced"), (53.45, "reproduced"), (53.60, "better"), (52.6, "worse")]
)
def test_under_the_papers_conditions_the_interval_judges(top1, judgement):
    found = verdict(top1=top1)
    assert (found.judgement, found.published) == (judgement, 53.10)
    assert found.difference == pytest.approx(top1 - 53.10)
    assert found.source.startswith("MaskAQ paper Table 1")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"budget": "fast"}, ("budget fast",)),
        ({"images": 450}, ("data 450 of 50,000 images",)),
        ({"engine": "repq_ptq"}, ("engine repq_ptq (paper: lsq_qat)",)),
        ({"settings": {"engine": {"batch_size": 32, "mode": "fixed"}}}, ("settings mode=fixed",)),
        ({"fp": 75.45}, ("checkpoint: full precision 75.45 (paper: 72.21)",)),
        ({"protocol": {"engine": {"scope": "backbone"}}}, ("scope: heads keep other bits",)),
        ({"budget": "fast", "images": 450}, ("budget fast", "data 450 of 50,000 images")),
        (
            {"engine": "repq_ptq", "budget": "fast"},
            ("engine repq_ptq (paper: lsq_qat)", "budget fast"),
        ),
    ],
)
def test_what_differs_is_named(changes, why):
    found = verdict(**changes)
    assert (found.judgement, found.differs) == ("not comparable", why)
    assert found.published == 53.10


def test_a_number_at_second_hand_is_judged_by_nobody():
    found = verdict("sardfq", engine="block_reconstruction", top1=52.06)
    assert found.judgement == "second hand"
    assert found.published is not None


def test_where_nothing_was_published_nothing_is_said():
    assert verdict("gdfq").judgement == "nothing published"
    assert verdict(bits="w2a2").published is None
