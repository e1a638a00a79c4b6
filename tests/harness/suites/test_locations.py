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
