from __future__ import annotations

import pytest

from harness.cli.options import narrowing
from harness.errors import UsageError
from harness.planning.request import Places, Request, Rows
from harness.planning.session import open_session
from harness.suites.suite import load_suite, narrowed, suite_names, with_overrides
from methods.engines.psaq_ptq import PsaqPtq

GOOD = """\
task: digits
backbones: [digits_vit]
bits: [w4a4]
methods: [psaq_vit]
"""


def written(tmp_path, text: str) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return str(file)


def faults(tmp_path, text: str) -> str:
    with pytest.raises(UsageError) as error:
        load_suite(written(tmp_path, text))
    return str(error.value)


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


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("digits_vit]", "digits_vitt]"),
            "mine.yaml:2: unknown backbone 'digits_vitt': did you mean digits_vit",
        ),
        (
            ("digits_vit]", "deit_tiny]"),
            "mine.yaml:2: deit_tiny is trained on imagenet, the suite's task is digits",
        ),
        (("[psaq_vit]", "[psaqvit]"), "mine.yaml:4: unknown method 'psaqvit': did you mean psaq_vit"),
        (("task: digits", "task: digit"), "mine.yaml:1: unknown task 'digit': did you mean digits"),
        (("digits_vit]", "digits_vit, digits_vit]"), "backbones lists a value twice"),
        (("[psaq_vit]\n", "[psaq_vit]\nbudget: huge\n"), "mine.yaml:5: unknown budget 'huge': one of paper"),
        (("[psaq_vit]\n", "[psaq_vit]\nseeds: []\n"), "seeds is empty"),
        (("[psaq_vit]\n", "[psaq_vit]\nseeds: [a]\n"), "seeds must be whole numbers"),
        (("[psaq_vit]\n", "[psaq_vit]\ntrack: controlled\n"), "track controlled needs engines"),
        (("[psaq_vit]\n", "[psaq_vit]\noracle: maybe\n"), "oracle must be true or false"),
        (("[psaq_vit]\n", "[psaq_vit]\nscope: 8\n"), "scope must be text"),
        (
            ("[psaq_vit]\n", "[psaq_vit]\nscope: heads\n"),
            "mine.yaml:5: unknown scope 'heads': one of whole, heads_8bit, backbone",
        ),
        (
            ("digits_vit]\nbits: [w4a4]\nmethods: [psaq_vit]", "digits_yolos]\nbits: [w4a4]\nmethods: [fdd]"),
            "mine.yaml:4: fdd does not support digits_yolos (yolos)",
        ),
        (
            ("digits_vit]\n", "digits_yolos]\nengines: [psaq_ptq, block_reconstruction]\n"),
            "mine.yaml:3: block_reconstruction does not support digits_yolos (yolos)",
        ),
        (
            (
                "digits_vit]\nbits: [w4a4]\nmethods: [psaq_vit]",
                "yolos_tiny]\nbits: [w4a4]\nmethods: [sardfq]",
            ),
            "mine.yaml:4: block_reconstruction does not support yolos_tiny (yolos)",
        ),
        (("[psaq_vit]\n", "[psaq_vit]\ntask: digits\n"), "mine.yaml:5: the key 'task' stands twice"),
        (("[psaq_vit]\n", "[psaq_vit]\noverrides: {psaq: {a: 1}}\n"), "unknown method or engine 'psaq'"),
        (
            ("[psaq_vit]\n", "[psaq_vit]\nvariants: {mimiq: [{images: 3}]}\n"),
            "mine.yaml:5: variants of 'mimiq', which is not among the suite's methods",
        ),
        (
            ("[psaq_vit]\n", "[psaq_vit]\nvariants: {psaq_vit: [{imagse: 3}]}\n"),
            "psaq_vit: unknown field 'imagse': did you mean images",
        ),
        (("[psaq_vit]\n", "[psaq_vit]\nvariants: {psaq_vit: {images: 3}}\n"), "a list of settings, such as"),
        (
            ("[psaq_vit]\n", "[psaq_vit]\noverrides:\n  psaq_vit:\n    imagess: 3\n"),
            "mine.yaml:6: psaq_vit: unknown field 'imagess': did you mean images",
        ),
        (
            ("[psaq_vit]\n", "[psaq_vit]\noverrides:\n  psaq_vit: {images: many}\n"),
            "psaq_vit: images='many' is not of type int",
        ),
        (
            ("[psaq_vit]\n", "[psaq_vit]\noverrides:\n  psaq_vit: {lsq_qat: {epoch: 1}}\n"),
            "lsq_qat: unknown field 'epoch': did you mean epochs",
        ),
    ],
)
def test_each_fault_is_named(tmp_path, change, expected):
    assert expected in faults(tmp_path, GOOD.replace(*change))


@pytest.mark.parametrize("text", ["", "just text", "- 1\n- 2\n"])
def test_a_suite_is_a_mapping(tmp_path, text):
    assert "a suite is a mapping" in faults(tmp_path, text)


def test_broken_yaml_names_its_line(tmp_path):
    assert "mine.yaml:3: not valid YAML" in faults(tmp_path, "task: digits\nbits: [w4a4\nmethods: [a]\n")


def test_a_scope_is_part_of_a_suite_and_is_checked_against_the_engines(tmp_path, monkeypatch):
    file = written(tmp_path, GOOD + "scope: backbone\n")
    assert load_suite(file).scope == "backbone"
    assert load_suite(written(tmp_path, GOOD)).scope == "whole"
    file = written(tmp_path, GOOD + "scope: backbone\n")
    monkeypatch.setattr(PsaqPtq, "scopes", frozenset({"whole"}))
    with pytest.raises(UsageError, match=r"mine.yaml:5: psaq_ptq does not support scope backbone"):
        load_suite(file)


def test_the_command_line_chooses_the_scope_and_repeats_it(tmp_path):
    rows = Rows(suite=written(tmp_path, GOOD), scope="heads_8bit")
    chosen = Request(rows, Places(store=str(tmp_path / "store")))
    assert open_session(chosen).suite.scope == "heads_8bit"
    assert "--scope heads_8bit" in narrowing(chosen)
    with pytest.raises(UsageError, match="--scope: unknown scope 'neck': one of whole"):
        open_session(Request(Rows(suite=rows.suite, scope="neck")))


def test_narrowing_checks_names(tmp_path):
    suite = load_suite(written(tmp_path, GOOD))
    assert narrowed(suite, {"methods": ["mimiq"]}).methods == ("mimiq",)
    assert narrowed(suite, {"methods": []}) == suite
    with pytest.raises(UsageError, match="--backbones: unknown backbone 'vitt'"):
        narrowed(suite, {"backbones": ["vitt"]})


def test_assignments_reach_methods_engines_and_pairs(tmp_path):
    suite = load_suite(written(tmp_path, GOOD))
    changed = with_overrides(
        suite, ["psaq_vit.images=8", "lsq_qat.epochs=2", "psaq_vit.lsq_qat.epochs=3", "psaq_vit.images=9"]
    )
    assert changed.overrides == {
        "psaq_vit": {"images": "9", "lsq_qat": {"epochs": "3"}},
        "lsq_qat": {"epochs": "2"},
    }
    assert suite.overrides == {}


@pytest.mark.parametrize(
    "text", ["psaq_vit", "images=3", "a.b.c.d=1", "psaq_vit.imagse=3", "psaq_vit.images=-1"]
)
def test_wrong_assignments_are_refused(tmp_path, text):
    with pytest.raises(UsageError, match="--set"):
        with_overrides(load_suite(written(tmp_path, GOOD)), [text])
