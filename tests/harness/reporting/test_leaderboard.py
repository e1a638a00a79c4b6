"""Published numbers stand beside rows of the papers' settings, which the ImageNet suites have."""

from __future__ import annotations

import pytest

from harness.planning.stage_builder import StageBuilder, plain
from harness.planning.task_facts import TaskFacts
from harness.reporting.leaderboard import board_of
from harness.suites.loading import load_suite
from methods.registry import get_method
from results.renderers import render
from tests.results.fakes import record

IMAGENET_SUITES = [f"imagenet_{name}" for name in ("w3a3", "w4a4", "w5a5", "w4a8", "w8a8", "table1")]


def rows_of(suite_name: str, **assignments) -> dict[str, dict]:
    """Method -> its row on DeiT-T at the suite's budget, as if it had run."""
    suite = load_suite(suite_name)
    builder = StageBuilder(suite, {}, TaskFacts.of("imagenet", {}, outline=True))
    records = []
    for name in suite.methods:
        engine = get_method(name).engine
        settings = {
            "synthesizer": plain(builder.synthesis_config(name, engine)),
            "engine": plain(builder.engine_config(name, engine)),
        }
        records.append(
            record(name, engine=engine, budget=suite.budget, settings=settings, bits="w4a4", **assignments)
        )
    return {row["method"]: row for row in board_of(records).rows}


@pytest.mark.parametrize("suite", IMAGENET_SUITES)
def test_the_methods_of_the_imagenet_suites_have_the_papers_settings(suite):
    rows = rows_of(suite)
    assert {row["published_withheld"] for row in rows.values()} == {""}
    assert rows["maskaq"]["published"] == 53.10


def test_our_own_defaults_are_not_the_papers():
    rows = rows_of("controlled_w4a4")
    assert rows["maskaq"]["published_withheld"] == "budget fast"
    made = dict(record().settings)
    row = board_of([record("mimiq", engine="lsq_qat", budget="paper", settings=made)]).rows[0]
    assert "range_start=None" in row["published_withheld"]
    assert "range_start=None" in render(board_of([record("mimiq", engine="lsq_qat", budget="paper")]), "md")
