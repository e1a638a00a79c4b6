from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.suites.locations import find_locations


def test_flags_beat_environment_beats_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harness.yaml").write_text(
        "data: {imagenet: /from/config}\nweights: {deit_tiny: /c.safetensors}\nstore: /s\nweights_dir: /w\n"
    )
    variables = {"HARNESS_WEIGHTS_DEIT_TINY": "/from/env"}
    places = find_locations(environment=variables)
    assert str(places.data["imagenet"]) == "/from/config"
    assert str(places.weights["deit_tiny"]) == "/from/env"
    assert str(places.store) == "/s"
    assert str(places.weights_dir) == "/w"
    flagged = find_locations(["imagenet=/flag"], ["deit_tiny=/flag"], "/t", environment=variables)
    assert str(flagged.data["imagenet"]) == str(flagged.weights["deit_tiny"]) == "/flag"
    assert str(flagged.store) == "/t"


def test_all_faults_at_once_with_near_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        find_locations(["imagnet=/x", "nothing"], ["deit_tiny_=/y"], environment={})
    text = str(error.value)
    assert "--data imagnet: unknown name: did you mean imagenet" in text
    assert "--data nothing: write --data NAME=PATH" in text
    assert "did you mean deit_tiny" in text


@pytest.mark.parametrize("content", ["- a list", "dta: {}", "data: [1]", "data: {a: b"])
def test_a_broken_config_is_named(tmp_path, content):
    file = tmp_path / "c.yaml"
    file.write_text(content)
    with pytest.raises(UsageError, match=r"c\.yaml"):
        find_locations(config=str(file), environment={})


def test_a_named_config_has_to_exist(tmp_path):
    with pytest.raises(UsageError, match="no config file"):
        find_locations(config=str(tmp_path / "absent.yaml"), environment={})


@pytest.mark.parametrize(
    "content", ["5", "false", "'text'", "2026-13-45", "data: {imagenet: 5}", "data: {1: /x}"]
)
def test_a_config_with_other_values_than_texts_is_named(tmp_path, content):
    file = tmp_path / "c.yaml"
    file.write_text(content)
    with pytest.raises(UsageError, match=r"c\.yaml: (a config is|data maps names to paths|not valid YAML)"):
        find_locations(config=str(file), environment={})


@pytest.mark.parametrize("content", ["", "null", "# nothing yet"])
def test_an_empty_config_says_nothing(tmp_path, content):
    file = tmp_path / "c.yaml"
    file.write_text(content)
    assert find_locations(config=str(file), environment={}) == find_locations(environment={})


NO_PATHS = {
    "~nobody-of-that-name/x": "there is no such user",
    "a\0b": "no path has such characters",
    "\ud800": "no path has such characters",
    "x" * 5000: "longer than a path can be",
}


@pytest.mark.parametrize("path", NO_PATHS)
def test_a_path_that_no_file_can_have_is_named_with_its_origin(path):
    variables = {"HARNESS_DATA_COCO": path, "HARNESS_WEIGHTS_DIR": path}
    with pytest.raises(UsageError) as error:
        find_locations([f"imagenet={path}"], [f"deit_tiny={path}"], path, environment=variables)
    said = str(error.value).splitlines()
    origins = [
        "HARNESS_DATA_COCO",
        "--data imagenet",
        "--weights deit_tiny",
        "--store",
        "HARNESS_WEIGHTS_DIR",
    ]
    assert [next(o for o in origins if line.startswith(f"{o} ")) for line in said] == origins
    assert all(line.isprintable() and line.endswith(f": {NO_PATHS[path]}") for line in said)
