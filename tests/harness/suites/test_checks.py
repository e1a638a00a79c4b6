from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.suites.checks import faults as faults_of
from harness.suites.loading import load_suite
from harness.suites.suite import Suite
from methods.bits import Bits
from methods.engines.psaq_ptq import PsaqPtq
from tests.harness.suites.written_suites import GOOD, faults, written


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
        (("[psaq_vit]\n", "[psaq_vit]\ntask: digits\n"), "mine.yaml:5: the key 'task' is given twice"),
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
            "mine.yaml:7: psaq_vit: unknown field 'imagess': did you mean images",
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


def test_a_scope_is_part_of_a_suite_and_is_checked_against_the_engines(tmp_path, monkeypatch):
    file = written(tmp_path, GOOD + "scope: backbone\n")
    assert load_suite(file).scope == "backbone"
    assert load_suite(written(tmp_path, GOOD)).scope == "whole"
    file = written(tmp_path, GOOD + "scope: backbone\n")
    monkeypatch.setattr(PsaqPtq, "scopes", frozenset({"whole"}))
    with pytest.raises(UsageError, match=r"mine.yaml:5: psaq_ptq does not support scope backbone"):
        load_suite(file)


def test_a_suite_made_in_python_is_checked_too():
    suite = Suite("mine", "digits", ("digits_vitt",), (Bits(4, 4),), ("maskq",), seeds=(0, 0))
    paths = [path for path, _ in faults_of(suite)]
    assert paths == ["backbones", "methods", "seeds"]


def test_an_unknown_method_is_reported_once_however_often_it_is_named():
    suite = Suite(
        "mine",
        "digits",
        ("digits_vit",),
        (Bits(4, 4),),
        ("maskq",),
        overrides={"maskq": {"iterations": 1}},
        variants={"maskq": ({"iterations": 2},)},
    )
    assert [path for path, _ in faults_of(suite)] == ["methods"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            "seeds: [0, 9223372036854775808]",
            "mine.yaml:5: seed 9223372036854775808 is beyond what torch takes",
        ),
        (
            f"overrides: {{psaq_vit: {{learning_rate: 1{'0' * 400}}}}}",
            "mine.yaml:5: psaq_vit: learning_rate=1000",
        ),
        ("overrides: {psaq_vit: {images: !!binary MTI=}}", "psaq_vit: images=b'12' is not of type int"),
        ("overrides: {smi: {prune_at: !!set {1}}}", "smi: prune_at={1} is not of type"),
        ("overrides: {psaq_vit: {1: 2}}", "psaq_vit: unknown field '1'"),
        (
            "variants: {psaq_vit: [{tuned: {on: 2026-01-01}}]}",
            "psaq_vit: 'tuned' holds texts, finite numbers",
        ),
        ("variants: {psaq_vit: [{tuned: {value: .nan}}]}", "psaq_vit: 'tuned' holds texts, finite numbers"),
    ],
)
def test_odd_values_are_refused_before_a_plan(tmp_path, more, sentence):
    (said,) = faults(tmp_path, f"{GOOD}{more}\n").splitlines()
    assert sentence in said
    assert len(said) < 300
