"""Stage kinds are found by name; outsiders' come in beside them."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from pathlib import Path

import pytest

from harness.stages.base import RunContext, Stage
from harness.stages.facts import Facts, write_artifact
from harness.stages.kinds import (
    StageKind,
    UnknownKind,
    get_kind,
    is_made,
    kind_names,
    load_kinds,
    register_kind,
    unregister_kind,
)
from harness.store import open_store
from tests.harness import fake_stages
from tests.harness.stages.test_facts import SCORE


def test_the_six_kinds_are_there_before_outsiders():
    assert kind_names()[:6] == ["shard", "synthesize", "train", "quantize", "evaluate", "agree"]


@pytest.mark.parametrize("name", kind_names())
def test_a_kind_is_a_function_of_four_and_facts_that_can_be_stored(name):
    kind = get_kind(name)
    assert kind.name == name
    assert len(inspect.signature(kind.function).parameters) == 4
    assert dataclasses.is_dataclass(kind.facts)
    assert issubclass(kind.facts, Facts)
    assert set(typing.get_type_hints(kind.facts)) >= {"environment"}


def test_an_unknown_kind_is_named_with_a_near_one():
    with pytest.raises(UnknownKind, match=r"unknown stage kind 'quantise'.*quantize"):
        get_kind("quantise")


def test_kinds_of_a_module_are_known_until_they_are_forgotten():
    load_kinds("tests.harness.fake_stages")
    load_kinds("tests.harness.fake_stages")
    assert get_kind("work").function is fake_stages.work
    unregister_kind("work")
    unregister_kind("work")
    with pytest.raises(UnknownKind):
        get_kind("work")


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="'evaluate' is taken"):
        register_kind(StageKind("evaluate", fake_stages.work, fake_stages.FakeFacts))
    assert get_kind("evaluate").facts is not fake_stages.FakeFacts


def test_a_module_without_kinds_is_refused():
    with pytest.raises(ValueError, match=r"tests\.golden has no STAGE_KINDS"):
        load_kinds("tests.golden")


def test_every_process_is_told_which_modules_hold_kinds(tmp_path):
    context = fake_stages.context_of(tmp_path)
    assert RunContext(store=tmp_path).modules == ()
    assert context.modules == ("tests.harness.fake_stages",)


def test_whether_a_stage_is_made_takes_one_look_at_its_description(tmp_path, monkeypatch):
    store = open_store(tmp_path).create()
    one = Stage("evaluate", "one", {}, {}, key="one")
    write_artifact(store, one.key, {}, SCORE)
    reads = []
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **how: reads.append(path.name) or read(path, **how))
    assert is_made(one, store)
    assert reads == ["meta.json"]
