"""What a search leaves behind: the best settings, every trial as a row, shares; whole or absent."""

from __future__ import annotations

import csv

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from harness.tuning import outcome, studies
from harness.tuning.selection import Selection
from harness.tuning.space import Dimension, Space

SPACE = Space(
    "m", "e", (Dimension("m", "x", 0.5, low=0.0, high=1.0), Dimension("e", "rate", 0.1, low=0.0, high=1.0))
)


@pytest.fixture
def study():
    """Trials with the values 1, 3, 3 and 2; then a failed one with a reason, and a late one."""
    made = optuna.create_study(direction="maximize")
    for number, value in enumerate((1.0, 3.0, 3.0, 2.0)):
        add(made, [value], number, {studies.DEFAULT: True} if number == 0 else {"seconds": 1.5})
    add(made, None, 4, {"reason": "quantize: the loss is not finite"})
    add(made, None, 5, {studies.LATE: True})
    return made


def add(study, values, number, attributes):
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.COMPLETE if values else TrialState.FAIL,
            values=values,
            params={"m.x": number / 50, "e.rate": (number % 3) / 10},
            distributions=studies.distributions(SPACE),
            user_attrs=attributes,
        )
    )


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_trial_is_the_earliest_with_the_best_value(study):
    best = outcome.best_of(study)
    assert (best.number, best.values) == (1, [3.0])
    assert outcome.default_of(study).number == 0


def test_several_objectives_leave_the_pareto_front_the_best_first_objective_first():
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number, values in enumerate(([50.0, 5.0], [60.0, 9.0], [55.0, 9.5], [40.0, 1.0])):
        add(study, values, number, {})
    assert [trial.number for trial in outcome.best_first(study)] == [1, 0, 3]
    assert outcome.best_of(study).number == 1


def test_a_study_without_a_finished_trial_has_no_best():
    study = optuna.create_study(direction="maximize")
    add(study, None, 0, {})
    assert outcome.best_of(study) is None
    assert outcome.default_of(study) is None
    assert outcome.importances(study) == {}


def test_every_trial_is_a_row_whatever_became_of_it(study, tmp_path):
    outcome.write_trials(tmp_path / "s" / "trials.csv", study, SPACE, ["accuracy"])
    rows = rows_of(tmp_path / "s" / "trials.csv")
    assert [row["state"] for row in rows] == [*["complete"] * 4, "fail", "late"]
    assert [row["accuracy"] for row in rows] == ["1.0", "3.0", "3.0", "2.0", "", ""]
    assert [row["default"] for row in rows] == ["True", *["False"] * 5]
    assert (rows[1]["took"], rows[1]["m.x"], rows[1]["e.rate"]) == ("1.5", "0.02", "0.1")
    assert rows[4]["reason"] == "quantize: the loss is not finite"


def test_best_settings_come_with_how_they_were_found(study, tmp_path):
    facts = outcome.facts_of(study, ["accuracy"], "tune")
    assert (facts["trials"], facts["objective"], facts["split"]) == (5, "accuracy", "tune")
    outcome.write_best(tmp_path / "best.yaml", SPACE, {"m.x": 0.25, "e.rate": 0.5}, facts)
    found = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert found == {"overrides": {"m": {"x": 0.25, "e": {"rate": 0.5}}}, "tuned": {"m": facts}}


def of_values(values):
    """A study whose first setting decides the value; the second takes its values in turn."""
    made = optuna.create_study(direction="maximize")
    for number, value in enumerate(values):
        add(made, [value], number, {})
    return made


def test_shares_are_told_with_their_spread_and_only_of_enough_trials_that_differ(tmp_path):
    study = of_values([float(number) for number in range(outcome.least_for_importances(of_values([1.0])))])
    shares = outcome.importances(study)
    assert list(shares) == ["m.x", "e.rate"]
    assert sum(share.mean for share in shares.values()) == pytest.approx(1)
    assert shares["m.x"].mean > 0.7
    assert 0 < shares["m.x"].std < 0.3
    outcome.write_importances(tmp_path / "importances.csv", shares)
    rows = rows_of(tmp_path / "importances.csv")
    assert [row["setting"] for row in rows] == list(shares)
    assert all(float(row["deviation"]) > 0 for row in rows)
    assert outcome.importances(of_values([float(number) for number in range(19)])) == {}
    assert outcome.importances(of_values([1.0] * 30)) == {}


def test_a_finalist_that_further_seeds_chose_is_the_best_and_its_luck_is_told(study, tmp_path):
    kept = Selection(chosen=3, searched=2.0, again={0: (1.0,), 1: (0.5,), 3: (1.5, 1.0)})
    study.set_user_attr(outcome.SELECTION, kept.to_json())
    assert outcome.best_of(study).number == 3
    facts = outcome.facts_of(study, ["accuracy"], "tune")
    assert (facts["trials"], facts["scored_again"]) == (5 + 4, 4)
    assert (facts["while_searching"], facts["on_further_seeds"]) == (2.0, 1.25)
    outcome.write_trials(tmp_path / "trials.csv", study, SPACE, ["accuracy"])
    assert [row["again"] for row in rows_of(tmp_path / "trials.csv")] == ["1", "0.5", "", "1.5 1", "", ""]


def test_a_write_that_breaks_off_leaves_the_file_that_was_there(study, tmp_path, monkeypatch):
    path = tmp_path / "trials.csv"
    path.write_text("before")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        outcome.write_trials(path, study, SPACE, ["accuracy"])
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["trials.csv"]
