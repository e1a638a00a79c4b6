"""What the final comparison says of a search: better, worse, or not to be told apart, and what to use."""

from __future__ import annotations

import numpy as np
import pytest

from harness.tuning.verdict import verdicts
from tests.results.fakes import failed, record

SEEDS = (1, 2, 3)
TUNED = {"study": "s", "trials": 20}


def rows(tuned: float, default: float, images: int = 400, method: str = "maskaq"):
    """Records of both rows, right on these shares of the images, for each seed."""
    found = []
    for seed in SEEDS:
        generator = np.random.default_rng(seed)
        for share, tuning in ((tuned, TUNED), (default, {})):
            right = generator.random(images) < share
            found.append(
                record(method, right.tolist(), seed=seed, tuning=tuning, trial=f"{seed}{bool(tuning)}")
            )
    return found


@pytest.mark.parametrize(
    ("tuned", "default", "outcome", "recommended"),
    [
        (0.95, 0.6, "better", "these settings"),
        (0.6, 0.95, "worse", "the defaults"),
        (0.8, 0.8, "not told apart", "the defaults"),
    ],
)
def test_only_what_was_measured_to_be_better_is_recommended(tuned, default, outcome, recommended):
    records = rows(tuned, default)
    verdict = verdicts(records, {"maskaq": True}, SEEDS)["maskaq"]
    assert (verdict.outcome, verdict.recommended) == (outcome, recommended)
    means = {bool(r.tuning): [] for r in records}
    for r in records:
        means[bool(r.tuning)].append(r.metrics["top1"])
    measured = np.mean(means[True]) - np.mean(means[False])
    assert verdict.metrics["verdict/difference"] == pytest.approx(measured)
    assert verdict.metrics["verdict/low"] < measured < verdict.metrics["verdict/high"]
    assert f"{measured:+.2f} points of top1" in verdict.sentence
    assert "report split, seeds 1, 2, 3" in verdict.sentence
    assert verdict.sentence.endswith(f"recommended: {recommended}")
    assert verdict.facts == {"verdict": verdict.sentence, "recommended": recommended}


def test_several_methods_share_one_chance_of_being_wrong():
    first = rows(0.86, 0.80, method="maskaq")
    alone = verdicts(first, {"maskaq": True}, SEEDS)["maskaq"]
    others = {f"other{index}": rows(0.8, 0.8, method=f"other{index}") for index in range(9)}
    together = [*first, *(r for found in others.values() for r in found)]
    corrected = verdicts(together, {"maskaq": True} | dict.fromkeys(others, True), SEEDS)["maskaq"]
    assert alone.outcome == "better"
    assert corrected.p_value == pytest.approx(min(1.0, 10 * alone.p_value))
    assert corrected.outcome == "not told apart"


def test_a_search_that_found_nothing_else_or_whose_end_failed_recommends_the_defaults():
    same = verdicts(rows(0.8, 0.8), {"maskaq": False}, SEEDS)["maskaq"]
    assert (same.outcome, same.metrics) == ("the defaults themselves", {})
    assert same.sentence == "nothing better than the defaults was found; recommended: the defaults"
    broken = [r for r in rows(0.9, 0.5) if not (r.tuning and r.seed == 2)]
    broken.append(failed("maskaq", seed=2, tuning=TUNED))
    unknown = verdicts(broken, {"maskaq": True}, SEEDS)["maskaq"]
    assert (unknown.outcome, unknown.recommended) == ("not measured", "the defaults")
