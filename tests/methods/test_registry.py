"""Names of methods and engines, and plug-ins from files and installed packages."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from methods import engine_names, get_engine, get_method, load_plugin, method_names
from methods.registry import BrokenPlugin, UnknownName, load_entry_points, plugin_files

SOUND = """
from dataclasses import dataclass
from methods.base import Engine, Method, Synthesizer

@dataclass(frozen=True)
class Config:
    pass

class Nothing(Synthesizer):
    Config = Config
    def synthesize(self, task): ...

class Idle(Engine):
    Config, title, citation = Config, "Idle", "planted"
    def prepare(self, teacher, bits): ...
    def quantize(self, task): ...
    def protocol(self, bits): ...

METHOD = Method("nothing", Nothing, engine="idle", title="Nothing", citation="planted")
ENGINES = {"idle": Idle}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "plugin.py"
    file.write_text(text)
    return file


def test_a_plug_in_registers_a_method_and_an_engine_once(tmp_path):
    file = written(tmp_path, SOUND)
    load_plugin(file)
    load_plugin(file)
    assert method_names()[-1] == "nothing"
    assert engine_names()[-1] == "idle"
    assert get_engine(get_method("nothing").engine).title == "Idle"
    assert plugin_files().count(file) == 1


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("class Nothing(Synthesizer):", "class Nothing:", "synthesizer of nothing is no class derived"),
        ("    def synthesize(self, task): ...", "", "the synthesizer of nothing lacks synthesize"),
        ('    Config, title, citation = Config, "Idle", "planted"', "", "idle lacks Config, title, citation"),
        ("    def protocol(self, bits): ...", "", "the engine idle lacks protocol"),
        ("@dataclass(frozen=True)\n", "", "has a Config that is no frozen dataclass"),
        ('METHOD = Method("nothing", Nothing, engine="idle", title="Nothing", citation="planted")',
         "METHOD = Nothing", "METHOD is a ABCMeta: make it with methods.base.Method"),
        ('"nothing", Nothing', '"../nothing", Nothing', "the method name '../nothing' is no word of letters"),
        ('"idle": ', '"a/b": ', "the engine name 'a/b' is no word of letters"),
        ('"nothing", Nothing', '"maskaq", Nothing', "takes names that exist already: maskaq"),
        ("from dataclasses", "form dataclasses", "does not import: SyntaxError"),
    ],
)  # fmt: skip
def test_a_plug_in_that_breaks_the_contract_is_refused_whole(tmp_path, before, after, fault):
    assert before in SOUND
    file = written(tmp_path, SOUND.replace(before, after))
    names = method_names(), engine_names()
    with pytest.raises(BrokenPlugin, match=fault):
        load_plugin(file)
    assert (method_names(), engine_names()) == names


def test_a_file_that_offers_nothing_or_is_none_is_refused(tmp_path):
    with pytest.raises(BrokenPlugin, match="offers nothing: define METHOD"):
        load_plugin(written(tmp_path, "x = 1"))
    with pytest.raises(BrokenPlugin, match="no plug-in at"):
        load_plugin(tmp_path / "absent.py")


def test_installed_plug_ins_are_registered_and_broken_ones_are_skipped(tmp_path, monkeypatch):
    written(tmp_path, SOUND).rename(tmp_path / "installed_sound.py")
    (tmp_path / "installed_broken.py").write_text(
        SOUND.replace("    def prepare(self, teacher, bits): ...", "")
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        importlib.metadata.EntryPoint(name, module, "dfq_harness.methods")
        for name, module in (
            ("gone", "installed_nowhere"),
            ("broken", "installed_broken"),
            ("sound", "installed_sound"),
        )
    ]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda *, group: points if group == "dfq_harness.methods" else []
    )
    with pytest.warns(UserWarning, match="skipped") as warned:
        load_entry_points()
    assert len(warned) == 2
    assert any("the engine idle lacks prepare" in str(warning.message) for warning in warned)
    assert "nothing" in method_names()


def test_an_installed_plug_in_is_read_once_however_often_a_process_asks(tmp_path, monkeypatch):
    (tmp_path / "installed_once.py").write_text(SOUND)
    monkeypatch.syspath_prepend(tmp_path)
    point = importlib.metadata.EntryPoint("once", "installed_once", "dfq_harness.methods")
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda *, group: [point] if group == point.group else []
    )
    load_entry_points()
    load_entry_points()  # a second reading would warn that the names are taken
    assert "nothing" in method_names()


def test_an_unknown_name_is_refused_with_near_ones():
    with pytest.raises(UnknownName, match="maskaq"):
        get_method("maskq")
    with pytest.raises(UnknownName, match="lsq_qat"):
        get_engine("lsq_qta")
