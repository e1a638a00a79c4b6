"""The JSON schema of suites: the shipped file, and that it takes what the loader takes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import UsageError
from harness.suites.loading import load_suite, suite_names
from harness.suites.schema import suite_schema

SUITES = Path(__file__).resolve().parents[3] / "harness" / "suites"
HEADER = "# yaml-language-server: $schema=suite.schema.json"
GOOD: dict[str, Any] = {
    "task": "digits",
    "backbones": ["digits_vit"],
    "bits": ["w4a4"],
    "methods": ["psaq_vit", "mimiq"],
}


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    jsonschema.Draft7Validator.check_schema(suite_schema())
    return jsonschema.Draft7Validator(suite_schema())


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("suites") / "mine.yaml"


def loads(file: Path, suite: Any) -> bool:
    file.write_text(yaml.safe_dump(suite))
    try:
        load_suite(str(file))
    except UsageError:
        return False
    return True


def with_value(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The good suite with `value` at `path`."""
    suite = copy.deepcopy(GOOD)
    place = suite
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    return suite


def test_the_shipped_file_is_what_the_command_prints():
    printed = CliRunner().invoke(app, ["schema"])
    assert printed.exit_code == 0
    assert json.loads(printed.stdout) == suite_schema()
    assert (SUITES / "suite.schema.json").read_text() == printed.stdout, (
        "write it anew: harness schema > harness/suites/suite.schema.json"
    )


@pytest.mark.parametrize("name", suite_names())
def test_every_shipped_suite_names_the_schema_and_meets_it(validator, name):
    text = (SUITES / f"{name}.yaml").read_text()
    assert text.splitlines()[0] == HEADER
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


CHANGES = [
    (("task",), "digit", False),
    (("backbones",), ["digits_vitt"], False),
    (("backbones",), [], False),
    (("backbones",), ["digits_vit", "digits_swin"], True),
    (("backbones",), ["digits_vit", "digits_vit"], False),
    (("backbones",), "digits_vit", False),
    (("bits",), ["W2A8", "fp32"], True),
    (("bits",), ["w9a4"], False),
    (("bits",), [44], False),
    (("methods",), [], True),
    (("methods",), ["fp32", "maskaq"], True),
    (("seeds",), [], False),
    (("seeds",), [True], False),
    (("seeds",), [0, 7], True),
    (("budget",), "huge", False),
    (("scope",), "heads_8bit", True),
    (("scope",), 8, False),
    (("track",), "controlled", False),
    (("oracle",), "yes", False),
    (("name",), "mine", False),
    (("tuned",), {}, False),
    (("overrides",), None, True),
    (("overrides", "psaq"), {}, False),
    (("overrides", "psaq_vit"), {"iterations": 12}, True),
    (("overrides", "psaq_vit"), {"iterations": "12"}, True),
    (("overrides", "psaq_vit"), {"iterations": 0}, False),
    (("overrides", "psaq_vit"), {"iterations": 1.5}, False),
    (("overrides", "psaq_vit"), {"iteration": 12}, False),
    (("overrides", "psaq_vit"), {"lsq_qat": {"epochs": 3}}, True),
    (("overrides", "psaq_vit"), {"lsq_qat": {"epoch": 3}}, False),
    (("overrides", "fp32"), {"images": 3}, False),
    (("overrides", "lsq_qat"), {"learning_rate": "2e-4", "augment": False, "range_start": "released"}, True),
    (("overrides", "lsq_qat"), {"augment": "TRUE"}, True),
    (("overrides", "lsq_qat"), {"augment": 1}, False),
    (("overrides", "lsq_qat"), {"range_start": "fast"}, False),
    (("overrides", "smi"), {"prune_at": [10, 20]}, True),
    (("overrides", "smi"), {"prune_at": "10+20"}, True),
    (("overrides", "smi"), {"prune_at": [0.5]}, False),
    (("variants", "mimiq"), [{"iterations": 3}, {"lsq_qat": {"epochs": 2}, "tuned": {"trials": 5}}], True),
    (("variants", "mimiq"), [{"iteration": 3}], False),
    (("variants", "mimiq"), [{"tuned": 5}], False),
    (("variants", "mimiq"), {"iterations": 3}, False),
    (("variants", "fp32"), [{}], False),
]


@pytest.mark.parametrize(("path", "value", "good"), CHANGES)
def test_schema_and_loader_judge_a_change_alike(validator, file, path, value, good):
    suite = with_value(path, value)
    assert (validator.is_valid(suite), loads(file, suite)) == (good, good)


WORDS = st.sampled_from(
    ["digits", "digits_vit", "w4a4", "w1a4", "psaq_vit", "fast", "whole", "published", ""]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 5000), st.sampled_from([0.5, 1e-3, -2.5, 20.25]), WORDS
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(WORDS, SCALARS, max_size=2))
KEYS = st.sampled_from([*suite_schema()["properties"], "name", "overide"])
SETTINGS = [
    ("overrides", target, setting)
    for target in ("psaq_vit", "mimiq", "maskaq", "gdfq", "smi", "lsq_qat", "block_reconstruction")
    for setting in [
        *suite_schema()["definitions"][
            f"{'engine' if '_qat' in target or '_rec' in target else 'method'}.{target}"
        ]["properties"],
        "typo",
    ]
]
quick = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@quick
@given(
    changes=st.dictionaries(KEYS, VALUES, max_size=2),
    missing=st.sets(st.sampled_from(list(GOOD)), max_size=1),
)
def test_schema_and_loader_judge_random_suites_alike(validator, file, changes, missing):
    suite = {key: value for key, value in {**GOOD, **changes}.items() if key not in missing or key in changes}
    assert validator.is_valid(suite) == loads(file, suite)


@quick
@given(path=st.sampled_from(SETTINGS), value=VALUES)
def test_schema_and_loader_judge_random_settings_alike(validator, file, path, value):
    suite = with_value(path, value)
    assert validator.is_valid(suite) == loads(file, suite)
