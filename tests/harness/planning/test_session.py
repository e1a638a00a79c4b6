from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.planning.request import Machine, Places, Request, Rows
from harness.planning.session import open_outline, open_session, open_workbench

FOUR = Rows(
    suite="digits_w4a4",
    bits=("w9a9",),
    methods=("maskq",),
    assignments=("maskaq.iteration=1",),
    seeds=("x",),
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HARNESS_DATA_IMAGENET", "HARNESS_WEIGHTS_DIR", "HARNESS_WEIGHTS_DEIT_TINY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def faults_of(request: Request, opened=open_session) -> list[str]:
    with pytest.raises(UsageError) as error:
        opened(request)
    return str(error.value).splitlines()


@pytest.mark.parametrize("opened", [open_session, open_outline, open_workbench])
def test_the_faults_of_one_request_come_together_and_each_once(opened):
    assert faults_of(Request(FOUR), opened) == [
        "--bits: 'w9a9' asks for 9-bit weights: 2 to 8 are supported",
        "--seeds: 'x' is not a whole number",
        "--methods: unknown method 'maskq': did you mean maskaq?",
        "--set: maskaq: unknown field 'iteration': did you mean iterations?",
    ]


def test_file_flags_machine_data_and_weights_are_checked_together(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "task: imagenet\nbackbones: [deit_tiny]\nbits: [w4a4]\nmethods: [psaq_vitt]\ncolour: red\n"
    )
    request = Request(
        Rows("mine.yaml", seeds=("x",), plugins=("absent.py",), set_files=("best.yaml",)),
        Places(data=(f"imagenet={tmp_path / 'nowhere'}",), weights=("deit_tiny=absent.safetensors",)),
        Machine(device="tpu", gpus_per_trial="-1", batch_size=0),
    )
    faults = faults_of(request)
    expected = (
        "no plug-in at",
        "mine.yaml:5: unknown key 'colour'",
        "--seeds: 'x' is not a whole number",
        "--set-file best.yaml: no such file",
        "mine.yaml:4: unknown method 'psaq_vitt': did you mean psaq_vit",
        "--gpus-per-trial -1: at least 0",
        "--batch-size 0: at least 1",
        "--device tpu: one of auto, cpu",
        f"no folder {tmp_path / 'nowhere'}",
        "no weights for deit_tiny at",
    )
    for sentence in expected:
        assert len([fault for fault in faults if sentence in fault]) == 1, sentence
    assert len(faults) == len(expected)


def test_missing_data_and_weights_are_reported_together():
    faults = faults_of(
        Request(Rows("imagenet_w4a4", backbones=("deit_tiny",)), Places(weights=("deit_tiny=absent.pth",)))
    )
    assert any("--data imagenet=DIR" in fault for fault in faults)
    assert any("no weights for deit_tiny" in fault for fault in faults)


def test_a_wrong_flag_for_a_place_brings_no_second_fault_about_what_it_meant():
    request = Request(Rows("imagenet_w4a4", backbones=("deit_tiny",)), Places(data=("imagnet=here",)))
    assert faults_of(request) == ["--data imagnet: unknown name: did you mean imagenet or images?"]


def test_an_unknown_suite_does_not_hide_what_is_wrong_with_the_flags():
    faults = faults_of(Request(Rows("digit_w4a4", bits=("w9a9",), methods=("maskq",))))
    assert [fault.partition(":")[0] for fault in faults] == [
        "unknown suite 'digit_w4a4'",
        "--bits",
        "--methods",
    ]


def test_a_request_for_nothing_says_what_to_give():
    assert faults_of(Request()) == ["nothing to run: give --suite NAME or --backbone NAME"]


def test_the_hub_is_not_asked_for_a_request_that_is_wrong_anyway(monkeypatch):
    def asked(*_, local_files_only=False, **__):
        assert local_files_only
        raise OSError("not here")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", asked)
    faults = faults_of(Request(Rows("imagenet_w4a4", backbones=("deit_tiny",), seeds=("x",))))
    assert not [fault for fault in faults if "hub" in fault]


def test_an_outline_needs_neither_weights_nor_data(monkeypatch):
    outline = open_outline(Request(Rows("imagenet_w4a4", backbones=("deit_tiny",))))
    assert outline.plan.missing(outline.store) == list(outline.plan.stages.values())
    assert outline.notes == (
        "weights of deit_tiny not found: keys not final",
        "data of the task imagenet not found: keys not final",
    )


def test_an_outline_with_everything_there_is_the_plan_that_runs():
    request = Request(Rows("digits_w4a4"), machine=Machine(device="cpu"))
    outline, session = open_outline(request), open_session(request)
    assert outline.notes == ()
    assert list(outline.plan.stages) == list(session.plan.stages)


def test_where_stages_run_is_in_no_key():
    on_cluster = {"ray_address": "auto", "accelerator_type": "H100", "gpus_per_trial": "auto"}
    machines = [
        Machine(device="cpu"),
        Machine(device="cuda", cpus_per_trial=7, **on_cluster),
        Machine(device="auto", ship_code=True, ray_address="auto"),
    ]
    sessions = [open_session(Request(Rows("digits_w4a4"), machine=machine)) for machine in machines]
    assert len({tuple(session.plan.stages) for session in sessions}) == 1
    assert [session.context.device for session in sessions] == ["cpu", "cuda", "auto"]
    assert [session.context.at_once > 0 for session in sessions] == [False, False, True]


def test_a_workbench_needs_no_suite():
    builder, context, _ = open_workbench(
        Request(Rows(backbones=("digits_vit",), bits=("w4a4",), methods=("psaq_vit",)))
    )
    assert (builder.suite.task, builder.suite.backbones) == ("digits", ("digits_vit",))
    assert context.threads >= 1
