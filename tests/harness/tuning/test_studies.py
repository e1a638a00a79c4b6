from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from harness.errors import UsageError
from harness.tuning import studies
from harness.tuning.ownership import OWNER, Owners, asking
from harness.tuning.space import Dimension, Space
from harness.tuning.storage import open_storage

ROOT = Path(__file__).resolve().parents[3]
SPACE = Space("m", "e", (Dimension("m", "x", 0.5, low=0.0, high=1.0),))
SUBJECT = {"method": "m", "engine": "e"}


def opened(store: Path, name: str = "s", subject=SUBJECT, resume: bool = False, storage=None):
    return studies.open_study(
        storage or open_storage(None, store),
        name,
        subject,
        {"accuracy": "maximize"},
        sampler=lambda before: studies.make_sampler("random", before, 1),
        pruner=studies.make_pruner("none", 1),
        resume=resume,
    )


@pytest.fixture
def store(tmp_path) -> Path:
    (tmp_path / "studies").mkdir()
    return tmp_path


def ask(study, owner: Owners | None = None):
    trial = study.ask(studies.distributions(SPACE))
    if owner is not None:
        trial.set_user_attr(OWNER, owner.id)
    return trial


def test_the_journal_keeps_a_study_between_processes(store):
    study = opened(store)
    study.tell(ask(study), 1.0)
    assert [t.value for t in opened(store, resume=True).trials] == [1.0]


def test_a_study_that_is_there_needs_resume(store):
    study = opened(store)
    study.tell(ask(study), 1.0)
    with pytest.raises(UsageError, match="study 's' is there with 1 trials: give --resume"):
        opened(store)


def test_a_study_of_another_method_is_refused_whatever_is_given(store):
    opened(store)
    for resume in (False, True):
        with pytest.raises(UsageError, match="its method is m, now other") as error:
            opened(store, subject={**SUBJECT, "method": "other"}, resume=resume)
        assert "--study NAME" in str(error.value)


def test_the_settings_before_the_search_are_tried_first_and_queued_once(store):
    study = opened(store)
    for _ in range(2):
        studies.queue_first(study, SPACE)
    first, second = ask(study), ask(study)
    assert first.params == {"m.x": 0.5}
    assert first.user_attrs[studies.DEFAULT] is True
    assert studies.DEFAULT not in second.user_attrs
    assert second.params["m.x"] != 0.5


def test_a_grid_is_queued_point_by_point(store):
    study = opened(store)
    studies.queue_first(study, SPACE, SPACE.grid(3, 10))
    assert [ask(study).params["m.x"] for _ in range(3)] == [0.5, 0.0, 1.0]


DIES = """
import sys, os, signal
from pathlib import Path
from tests.harness.tuning.test_studies import ask, opened
from harness.tuning.ownership import Owners
store = Path(sys.argv[1])
owner = Owners(store)
study = opened(store, resume=True)
study.tell(ask(study, owner), 7.0)
lost = ask(study, owner)
print(lost.number, lost.params["m.x"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_no_finished_trial_and_its_running_one_is_tried_again(store):
    opened(store)
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(store)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    number, value = done.stdout.split()
    study = opened(store, resume=True)
    with Owners(store) as owners, asking(store):
        assert studies.queue_interrupted(study, owners) == [int(number)]
        assert studies.queue_interrupted(study, owners) == []
        again = ask(study, owners)
    assert again.params["m.x"] == float(value)
    assert again.user_attrs[studies.AGAIN] == int(number)
    assert [t.value for t in study.trials if t.state == TrialState.COMPLETE] == [7.0]
    # Three asks, one of them a repetition: two trials count.
    assert len(studies.counted(study)) == 2


def test_the_running_trial_of_a_living_process_is_left_alone(store):
    study = opened(store)
    with Owners(store) as other, asking(store):
        with Owners(store) as alive:
            ask(study, alive)
            assert studies.queue_interrupted(study, other) == []
        assert studies.queue_interrupted(study, other) == [0]


def test_a_trial_that_nobody_signed_belongs_to_a_dead_process(store):
    study = opened(store)
    ask(study)
    with Owners(store) as owners, asking(store):
        assert studies.queue_interrupted(study, owners) == [0]


def test_late_trials_do_not_count(store):
    study = opened(store)
    trial = ask(study)
    trial.set_user_attr(studies.LATE, True)
    study.tell(trial, state=TrialState.FAIL)
    study.tell(ask(study), state=TrialState.FAIL)
    assert [t.number for t in studies.counted(study)] == [1]


def test_seconds_add_up_over_processes(store):
    study = opened(store)
    studies.note_seconds(study, "a", 2.0)
    studies.note_seconds(study, "a", 3.0)
    studies.note_seconds(study, "b", 4.0)
    assert studies.seconds_used(study) == 7.0
    seeds = []
    studies.open_study(
        study._storage,
        "s",
        SUBJECT,
        {"accuracy": "maximize"},
        sampler=lambda before: seeds.append(before) or studies.make_sampler("random", before, 1),
        pruner=studies.make_pruner("none", 1),
        resume=True,
    )
    assert seeds == [0, 2]  # as a new study, then as the third process of this one


@pytest.mark.parametrize("name", studies.SAMPLERS)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_sampler_asks_and_is_told(store, name):
    study = optuna.create_study(sampler=studies.make_sampler(name, 0, 2), direction="maximize")
    for value in range(12):
        study.tell(study.ask(studies.distributions(SPACE)), float(value))
    assert all(0 <= t.params["m.x"] <= 1 for t in study.trials)


def test_the_median_pruner_stops_what_lies_below_and_hyperband_halves():
    study = optuna.create_study(direction="maximize", pruner=studies.make_pruner("median", 4))
    for _ in range(6):
        good = study.ask()
        good.report(1.0, 1)
        study.tell(good, 1.0)
    bad = study.ask()
    bad.report(0.0, 1)
    assert bad.should_prune()
    assert isinstance(studies.make_pruner("hyperband", 4), optuna.pruners.HyperbandPruner)
