from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.suites.loading import load_suite, suite_names
from tests.harness.suites.written_suites import GOOD, faults, written


@pytest.mark.parametrize("name", suite_names())
def test_every_shipped_suite_is_valid(name):
    suite = load_suite(name)
    assert suite.name == name
    assert suite.description


def test_a_file_is_a_suite_too(tmp_path):
    suite = load_suite(written(tmp_path, GOOD))
    assert (suite.name, suite.task, suite.methods, suite.seeds) == ("mine", "digits", ("psaq_vit",), (0,))
    assert [str(bits) for bits in suite.bits] == ["w4a4"]


def test_anchors_need_not_be_listed_and_may_be(tmp_path):
    assert load_suite(
        written(tmp_path, GOOD.replace("[psaq_vit]", "[fp32, real_data, psaq_vit]"))
    ).methods == ("psaq_vit",)


def test_an_unknown_suite_suggests_near_names():
    with pytest.raises(UsageError, match=r"did you mean .*digits_w4a4"):
        load_suite("digit_w4a4")


def test_all_faults_come_together_with_their_lines(tmp_path):
    text = faults(
        tmp_path,
        "task: digits\nbackbones: [digits_vitt]\nbits: [w4a4, w9a9]\nmethodes: [psaq_vit]\nseeds: 3\n",
    )
    assert "mine.yaml:4: unknown key 'methodes': did you mean methods" in text
    assert "the key 'methods' is missing" in text
    assert "mine.yaml:3: 'w9a9' asks for 9-bit weights: 2 to 8" in text
    assert "mine.yaml:5: seeds must be a list" in text


@pytest.mark.parametrize("text", ["", "just text", "- 1\n- 2\n"])
def test_a_suite_is_a_mapping(tmp_path, text):
    assert "a suite is a mapping" in faults(tmp_path, text)


def test_broken_yaml_names_its_line(tmp_path):
    assert "mine.yaml:3: not valid YAML" in faults(tmp_path, "task: digits\nbits: [w4a4\nmethods: [a]\n")


@pytest.mark.parametrize(
    "value", ["!!float x", "!!timestamp x", "!!bool x", '!!int ""', "2026-13-45", "9" * 5000, "!!binary é"]
)
def test_a_value_that_is_no_yaml_is_one_sentence(tmp_path, value):
    (sentence,) = faults(tmp_path, f"{GOOD}seeds: [{value}]\n").splitlines()
    assert sentence.startswith("mine.yaml")
    assert "not valid YAML" in sentence
    assert "NoneType" not in sentence


def test_a_file_in_another_encoding_is_one_sentence(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(UsageError, match=r"mine\.yaml: not valid YAML: 'utf-8' codec can't decode"):
        load_suite(str(file))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('"\\e[31m": 1', "mine.yaml:5: unknown key '\\x1b[31m': there are"),
        ("5: 1", "mine.yaml:5: unknown key '5': there are"),
        ('budget: "a\\nb"', "mine.yaml:5: unknown budget 'a\\nb': one of"),
        ('engines: ["\\uDCFF"]', "mine.yaml:5: unknown engine '\\udcff': there are"),
        (f"seeds: 0x{'f' * 5000}", "mine.yaml:5: seeds must be a list, such as [a number of thousands of"),
        (f"track: {'x' * 5000}", f"mine.yaml:5: unknown track '{'x' * 60}...{'x' * 57}': one of"),
    ],
)
def test_what_a_message_repeats_is_printable_and_short(tmp_path, line, sentence):
    (said,) = faults(tmp_path, f"{GOOD}{line}\n").splitlines()
    assert said.startswith(sentence)


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".yaml", "a\0.yaml", "\udcff.yaml", "\ud800"])
def test_a_name_that_no_file_can_have_is_an_unknown_suite(name):
    with pytest.raises(UsageError, match=r"no suite file at|unknown suite") as error:
        load_suite(name)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["...yaml", "..yaml", "-x.yaml", "a\nb.yaml", f"{'x' * 101}.yaml"])
def test_a_suite_whose_name_makes_no_folder_is_refused(tmp_path, name):
    file = tmp_path / name
    file.write_text(GOOD)
    with pytest.raises(UsageError, match=r"a name (does not|has no|has at most) .*; rename the file"):
        load_suite(str(file))
