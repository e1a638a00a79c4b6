"""A plug-in that looks for data gets none, wherever in it the look is: no line of it runs unguarded."""

from __future__ import annotations

import dataclasses

import pytest

from harness.errors import UsageError
from harness.planning.request import Machine, Places, Request, Rows
from harness.planning.session import open_workbench
from harness.stages.run_stage import run_stage
from tests.registry_guard import registry_as_it_was

PEEKING = """
import copy, os
from dataclasses import dataclass
import torch
from methods.base import Engine, Method, Synthesizer, SyntheticImages

def look(place):
    if os.environ.get("PEEK") == place:
        open(os.environ["PEEK_AT"]).read()

look("import")

@dataclass(frozen=True)
class Config:
    pass

class Peeking(Synthesizer):
    Config = Config
    def __init__(self, config):
        super().__init__(config)
        look("synthesizer")
    def synthesize(self, task):
        look("synthesis")
        return SyntheticImages(torch.rand(2, *task.teacher.data.input_size), torch.zeros(2).long())

class Watching(Engine):
    Config, title, citation = Config, "Watching", "planted for tests"
    def __init__(self, config, scope):
        super().__init__(config, scope)
        look("engine")
    def prepare(self, teacher, bits):
        look("student")
        return copy.deepcopy(teacher.model)
    def quantize(self, task):
        task.source.first(None)
        look("quantization")
        return copy.deepcopy(task.teacher.model)
    def protocol(self, bits):
        return {"quantized": "nothing"}

METHOD = Method("peeking", Peeking, engine="watching", title="Peeking", citation="planted for tests")
ENGINES = {"watching": Watching}
"""


@pytest.fixture
def request_of(tmp_path, monkeypatch) -> Request:
    """A request of the plug-in, with data that it may not read."""
    (tmp_path / "peeking.py").write_text(PEEKING)
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "secret.txt").write_text("pixels")
    monkeypatch.setenv("PEEK_AT", str(tmp_path / "imagenet" / "secret.txt"))
    plugins = (str(tmp_path / "peeking.py"),)
    return Request(
        Rows(backbones=("digits_vit",), methods=("peeking",), bits=("w4a4",), plugins=plugins),
        Places(data=(f"imagenet={tmp_path / 'imagenet'}",), store=str(tmp_path / "store")),
        Machine(device="cpu", cpus_per_trial=1),
    )


def _stages(request: Request):
    """The context, and the stages from images to the student's evaluation."""
    builder, context, _ = open_workbench(request)
    images = builder.synthesis("peeking", "watching", "digits_vit", 0)
    bits = builder.suite.bits[0]
    student = builder.quantization("peeking", "watching", "digits_vit", bits, 0, images)
    reference = builder.reference("digits_vit")
    return context, [images, student, reference, builder.evaluation("digits_vit", student, reference)]


def _ended(request: Request, monkeypatch, place: str) -> dict[str, str]:
    """Stage kind -> why it failed, for the stages that ran while the plug-in looked at that place."""
    context, stages = _stages(request)
    monkeypatch.setenv("PEEK", place)
    results = {}
    for stage in stages:
        result = run_stage(stage, context)
        results[stage.kind] = result.reason
        if result.status == "failed":
            break
    return results


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("synthesizer", "synthesize"),
        ("synthesis", "synthesize"),
        ("engine", "quantize"),
        ("quantization", "quantize"),
        ("student", "evaluate"),
    ],
)
def test_a_look_at_the_data_fails_the_stage_that_it_is_in(request_of, monkeypatch, place, kind):
    ended = _ended(request_of, monkeypatch, place)
    assert list(ended)[-1] == kind
    assert ended[kind] == (
        "DataAccessRefused: a data-free method tried to read secret.txt in a data set's folder"
    )


def test_a_plug_in_that_reads_data_when_imported_is_broken_in_the_driver(request_of, monkeypatch):
    monkeypatch.setenv("PEEK", "import")
    with pytest.raises(UsageError, match=r"does not import: DataAccessRefused: .* tried to read secret\.txt"):
        open_workbench(request_of)


def test_a_plug_in_that_reads_data_when_imported_fails_a_worker_s_stage(request_of, monkeypatch):
    with registry_as_it_was():
        context, stages = _stages(request_of)
    monkeypatch.setenv("PEEK", "import")
    result = run_stage(stages[0], dataclasses.replace(context))
    assert result.status == "failed"
    assert "tried to read secret.txt" in result.reason


def test_a_plug_in_that_does_not_look_goes_through(request_of, monkeypatch):
    assert set(_ended(request_of, monkeypatch, "nowhere").values()) == {""}
