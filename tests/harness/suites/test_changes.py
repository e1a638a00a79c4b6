from __future__ import annotations

import pytest

from harness.suites.changes import narrowed, with_assignments, with_budget, with_tuned, without_labels
from harness.suites.draft import Draft
from harness.suites.loading import read_suite, read_tuned
from harness.suites.suite import Suite
from methods.bits import Bits

DRAFT = Draft(Suite("mine", "digits", ("digits_vit",), (Bits(4, 4),), ("psaq_vit",)))


def test_narrowing_checks_names():
    assert narrowed(DRAFT, {"methods": ["mimiq"]}).suite.methods == ("mimiq",)
    assert narrowed(DRAFT, {"methods": []}) == DRAFT
    (fault,) = narrowed(DRAFT, {"backbones": ["vitt"]}).all_faults()
    assert fault.startswith("--backbones: unknown backbone 'vitt'")


def test_words_that_cannot_be_read_leave_the_field_as_it_was():
    draft = narrowed(DRAFT, {"bits": ["w4a4", "w9a9"], "seeds": ["x", "y"]})
    assert draft.suite == DRAFT.suite
    assert draft.all_faults() == [
        "--bits: 'w9a9' asks for 9-bit weights: 2 to 8 are supported",
        "--seeds: 'x' is not a whole number",
        "--seeds: 'y' is not a whole number",
    ]


def test_variants_go_with_their_method():
    draft = DRAFT.changed({}, variants={"psaq_vit": ({"images": 3},)})
    assert narrowed(draft, {"methods": ["mimiq"]}).suite.variants == {}
    assert narrowed(draft, {"seeds": ["1"]}).suite.variants == draft.suite.variants


def test_another_budget_drops_the_overrides_of_the_suites_own():
    draft = DRAFT.changed({}, budget="fast", overrides={"psaq_vit": {"images": 8}})
    assert with_budget(draft, "smoke").suite.overrides == {}
    assert with_budget(draft, "fast") == draft


def test_imagenet_falls_back_to_unlabelled_images():
    draft = DRAFT.changed({}, task="imagenet")
    fallen = without_labels(draft, {"images"})
    assert fallen.suite.task == "images"
    assert "agreement with the teacher" in fallen.notes[0]
    assert without_labels(draft, {"images", "imagenet"}) == draft


def test_assignments_reach_methods_engines_and_pairs():
    changed = with_assignments(
        DRAFT, ["psaq_vit.images=8", "lsq_qat.epochs=2", "psaq_vit.lsq_qat.epochs=3", "psaq_vit.images=9"]
    )
    assert changed.suite.overrides == {
        "psaq_vit": {"images": "9", "lsq_qat": {"epochs": "3"}},
        "lsq_qat": {"epochs": "2"},
    }
    assert DRAFT.suite.overrides == {}


@pytest.mark.parametrize(
    "text", ["psaq_vit", "images=3", "a.b.c.d=1", "psaq_vit.imagse=3", "psaq_vit.images=-1"]
)
def test_wrong_assignments_are_refused(text):
    (fault,) = with_assignments(DRAFT, [text]).all_faults()
    assert fault.startswith("--set")


def test_a_fault_names_the_place_where_its_own_setting_was_given(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "task: digits\nbackbones: [digits_vit]\nbits: [w4a4]\nmethods: [psaq_vit]\n"
        "overrides:\n  psaq_vit:\n    imagse: 3\n"
    )
    draft = with_assignments(read_suite(str(file)), ["psaq_vit.itertions=2", "maskq.images=2"])
    faults = draft.all_faults()
    assert [fault.partition(": ")[0] for fault in faults] == ["mine.yaml:7", "--set", "--set"]


def test_what_a_search_found_comes_on_top_with_how_it_was_found(tmp_path):
    file = tmp_path / "best.yaml"
    file.write_text("overrides: {psaq_vit: {images: 8}}\ntuned: {psaq_vit: {trials: 3}}\n")
    suite = with_tuned(DRAFT, read_tuned(str(file))).suite
    assert suite.overrides == {"psaq_vit": {"images": 8}}
    assert suite.tuned == {"psaq_vit": {"trials": 3}}


@pytest.mark.parametrize("content", [None, "- 1\n", "tuned: {}\n", "overrides: {psaq_vit: 3}\n", "a: [\n"])
def test_a_file_that_no_search_wrote_is_refused(tmp_path, content):
    file = tmp_path / "best.yaml"
    if content is not None:
        file.write_text(content)
    draft = with_tuned(DRAFT, read_tuned(str(file)))
    assert draft.suite.overrides == {}
    (fault,) = draft.all_faults()
    assert "best.yaml" in fault
