"""What a user's YAML file may be, whichever option or verb reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pytest

from harness.suites.yaml_files import YamlFile, parse_yaml


def read(tmp_path, text: str) -> YamlFile:
    """A file `mine.yaml` with this text, parsed."""
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return parse_yaml(file)


def bomb(first: str, line: Callable[[Iterable[str]], str]) -> str:
    """Thirty anchors, each nine times the one before: 9 to the power of 30 values."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} {line([f'*a{i - 1}'] * 9)}" for i in range(1, 30)]
    return "\n".join(lines)


BOMBS = {
    "lists": bomb("[x]", lambda parts: f"[{', '.join(parts)}]"),
    "maps": bomb("{x: 1}", lambda parts: f"{{{', '.join(f'k{i}: {p}' for i, p in enumerate(parts))}}}"),
    "merge keys": bomb("{x: 1}", lambda parts: f"{{<<: [{', '.join(parts)}]}}"),
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_anchors_that_repeat_each_other_are_refused_before_anything_is_built(tmp_path, text):
    data, lines, faults = read(tmp_path, text)
    assert (data, lines) == (None, {})
    (fault,) = faults
    assert re.fullmatch(r"mine.yaml:[56]: more than 20,000 values with its aliases written out", fault)


def test_a_plain_file_of_that_size_is_refused_too(tmp_path):
    assert "more than 20,000 values" in str(read(tmp_path, f"a: [{'1,' * 20_001}]").faults)
    assert len(read(tmp_path, f"a: [{'1,' * 1000}]").data["a"]) == 1000


@pytest.mark.parametrize("text", ["a: 1\nb: &x [1, *x]\n", "a: 1\nb: &x {c: {d: *x}}\n", "a: &x\n  <<: *x\n"])
def test_a_value_that_would_contain_itself_is_refused(tmp_path, text):
    assert read(tmp_path, text).faults == ("mine.yaml:2: the alias *x is inside of what it stands for",)


@pytest.mark.parametrize(
    "text",
    [
        f"a: {'[' * 5000}{']' * 5000}",
        f"a: {'{b: ' * 5000}1{'}' * 5000}",
        "".join(f"{' ' * depth}a:\n" for depth in range(500)),
        "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 500)),
    ],
    ids=["lists", "maps", "blocks", "aliases"],
)
def test_a_file_nested_without_end_is_refused(tmp_path, text):
    (fault,) = read(tmp_path, text).faults
    assert re.fullmatch(r"mine.yaml:\d+: nested deeper than 20 levels", fault)


def test_anchors_and_merge_keys_work_as_ever(tmp_path):
    text = """\
common: &common {images: 8, steps: 5}
more: &more {rate: 1}
first:
  <<: *common
  steps: 6
second: {<<: [*more, *common]}
both: [*common, *common]
"""
    data, lines, faults = read(tmp_path, text)
    assert faults == ()
    assert data["first"] == {"images": 8, "steps": 6}
    assert data["second"] == {"images": 8, "steps": 5, "rate": 1}
    assert data["both"] == [data["common"]] * 2
    assert (lines["first.steps"], lines["first.images"], lines["second.rate"]) == (5, 1, 2)


def test_a_key_given_twice_is_named_however_deep_and_once(tmp_path):
    text = "a: &a\n  - {c: 1, d: 2,\n     c: 3}\nb: *a\nb: 2\n<<: {a: 1}\n<<: {e: 1}\n"
    assert read(tmp_path, text).faults == (
        "mine.yaml:3: the key 'c' is given twice",
        "mine.yaml:5: the key 'b' is given twice",
        "mine.yaml:7: the key '<<' is given twice",
    )


@pytest.mark.parametrize("key", ["? [a, b]\n", "? {a: b}\n", f"? {'k' * 201}\n"], ids=["list", "map", "long"])
def test_a_key_is_a_word(tmp_path, key):
    assert read(tmp_path, f"{key}: 1\n").faults == ("mine.yaml:1: a key is one word of at most 200 letters",)


@pytest.mark.parametrize(
    "text",
    [
        "a: !!int x",
        "a: !!timestamp x",
        "a: 2024-13-45",
        f"a: {'1' * 5000}",
        "a: !!python/object/apply:os.getcwd []",
        "a: \0",
        "a: *nobody",
        "a: 1\n---\nb: 2\n",
    ],
)
def test_what_yaml_cannot_say_is_one_sentence(tmp_path, text):
    (fault,) = read(tmp_path, text).faults
    assert re.match(r"mine\.yaml(:\d+)?: not valid YAML: .", fault)
    assert "\n" not in fault


def test_a_file_that_is_no_text_or_far_too_long_is_one_sentence(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"a: \xff\n")
    assert "mine.yaml: not valid YAML" in str(parse_yaml(file).faults)
    file.write_bytes(b"#" * (2**20 + 1))
    assert parse_yaml(file).faults == ("mine.yaml: longer than 1 MiB, which no file of settings is",)


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--suite", "FILE"),
        ("plan", "--suite", "digits_w4a4", "--set-file", "FILE"),
        ("plan", "--suite", "digits_w4a4", "--config", "FILE"),
        ("tune", "--suite", "digits_w3a3", "--method", "maskaq", "--scheduler", "inline", "--space", "FILE"),
    ],
    ids=["suite", "set-file", "config", "space"],
)
def test_every_option_that_takes_a_yaml_file_refuses_a_bomb(tmp_path, harness, words):
    file = tmp_path / "mine.yaml"
    file.write_text(BOMBS["merge keys"])
    status, out, err = harness(*(str(file) if word == "FILE" else word for word in words))
    assert (status, out) == (2, "")
    assert err == "harness: mine.yaml:5: more than 20,000 values with its aliases written out\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
