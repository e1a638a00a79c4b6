"""What methods are kept from; docs/design/data-guard.md lists the same."""

# ruff: noqa: SIM115 - what opens a file here is refused

from __future__ import annotations

import ctypes.util
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

from harness.stages.base import RunContext
from harness.stages.data_guard import DataAccessRefused, data_allowed, no_data


@pytest.fixture
def data(tmp_path) -> Path:
    """A data folder with an image, a file of tensors and a database."""
    folder = tmp_path / "imagenet"
    (folder / "val" / "n01").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    safetensors.torch.save_file({"x": torch.zeros(3)}, folder / "a.safetensors")
    sqlite3.connect(folder / "a.db").close()
    return folder


@pytest.fixture
def context(tmp_path, data) -> RunContext:
    """A context with the data folder, and a store beside it."""
    return RunContext(tmp_path / "store", data={"imagenet": data})


def test_the_guard_holds_in_its_block_alone_and_can_be_lifted(tmp_path, data, context):
    elsewhere = tmp_path / "notes.txt"
    elsewhere.write_text("fine")
    with no_data(context):
        with pytest.raises(DataAccessRefused, match=r"tried to read a\.png in a data set's folder"):
            (data / "a.png").read_bytes()
        assert elsewhere.read_text() == "fine"
        with data_allowed():
            assert (data / "a.png").read_bytes()
        with pytest.raises(DataAccessRefused):
            (data / "a.png").read_bytes()
    assert (data / "a.png").read_bytes()


def _torchvision(data: Path) -> torch.Tensor:
    import torchvision.io

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions point at another package
        return torchvision.io.read_image(str(data / "a.png"))


READERS: dict[str, Callable[[Path], object]] = {
    "open": lambda data: open(data / "a.png", "rb"),
    "os.open": lambda data: os.open(data / "a.png", os.O_RDONLY),
    "os.listdir": os.listdir,
    "os.scandir": lambda data: os.scandir(os.path.relpath(data)),
    "os.chdir": os.chdir,
    "os.link": lambda data: os.link(data / "a.png", data.parent / "b.png"),
    "os.rename": lambda data: os.rename(data / "a.png", data.parent / "b.png"),
    "sqlite3": lambda data: sqlite3.connect(data / "a.db"),
    "sqlite3 by address": lambda data: sqlite3.connect(f"file:{data / 'a.db'}?mode=ro", uri=True),
    "PIL": lambda data: Image.open(data / "a.png"),
    "torch.from_file": lambda data: torch.from_file(str(data / "a.png"), size=3, dtype=torch.uint8),
    "torch.from_file by name": lambda data: torch.from_file(filename=str(data / "a.png"), size=1),
    "a storage": lambda data: torch.UntypedStorage.from_file(str(data / "a.png"), False, 3),
    "torch.jit.load": lambda data: torch.jit.load(data / "a.png"),
    "torchvision": _torchvision,
    "safetensors": lambda data: safetensors.torch.load_file(data / "a.safetensors"),
    "safe_open": lambda data: safetensors.safe_open(data / "a.safetensors", "pt"),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_whoever_opens_a_file_of_the_data_is_refused(data, context, read):
    with no_data(context), pytest.raises(DataAccessRefused, match="a data-free method tried to read"):
        read(data)


def test_the_wrapped_readers_read_what_is_no_data(tmp_path, context):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.new("RGB", (4, 4)).save(elsewhere / "a.png")
    safetensors.torch.save_file({"x": torch.zeros(3)}, elsewhere / "a.safetensors")
    with no_data(context):
        for _ in range(2):
            assert _torchvision(elsewhere).shape == (3, 4, 4)
        assert safetensors.torch.load_file(elsewhere / "a.safetensors")["x"].tolist() == [0, 0, 0]
        assert torch.from_file(str(elsewhere / "a.png"), size=3, dtype=torch.uint8).tolist() == [137, 80, 78]


def test_a_folder_that_was_entered_or_opened_before_is_no_way_in(data, context, monkeypatch):
    inside = os.open(data, os.O_RDONLY)
    above = os.open(data.parent, os.O_RDONLY)
    image = os.open(data / "a.png", os.O_RDONLY)
    ways: list[Callable[[], object]] = [
        lambda: os.open("a.png", os.O_RDONLY, dir_fd=inside),
        lambda: os.open("imagenet/a.png", os.O_RDONLY, dir_fd=above),
        lambda: os.link("a.png", data.parent / "b.png", src_dir_fd=inside),
        lambda: os.listdir(inside),
        lambda: os.scandir(inside),
        lambda: os.fchdir(inside),
        lambda: open(image, "rb", closefd=False),
        lambda: open(f"/proc/self/fd/{image}", "rb"),
    ]
    for way in ways:
        with no_data(context), pytest.raises(DataAccessRefused):
            way()
    monkeypatch.chdir(data)
    for way in (lambda: open("a.png", "rb"), os.listdir, os.scandir):
        with no_data(context), pytest.raises(DataAccessRefused):
            way()
    for descriptor in (inside, above, image):
        os.close(descriptor)


def test_a_file_beside_an_open_folder_of_no_data_stays_open(tmp_path, context):
    (tmp_path / "elsewhere").mkdir()
    folder = os.open(tmp_path / "elsewhere", os.O_RDONLY)
    with no_data(context):
        os.close(os.open("b.txt", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
    os.close(folder)
    assert (tmp_path / "elsewhere" / "b.txt").exists()


@pytest.mark.parametrize("place", [".", "val", "val/n01"])
def test_where_links_in_the_data_lead_is_protected(tmp_path, place):
    far = tmp_path / "far"
    (far / "n02").mkdir(parents=True)
    (far / "n02" / "b.png").write_text("pixels")
    (tmp_path / "near.png").write_text("pixels")
    folder = tmp_path / "data"
    (folder / place).mkdir(parents=True)
    (folder / place / "linked").symlink_to(far)
    (folder / place / "linked.png").symlink_to(tmp_path / "near.png")
    (folder / place / "around").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "notes.txt").write_text("fine")
    with no_data(RunContext(tmp_path / "store", data={"images": tmp_path / "link"})):
        for hidden in (far / "n02" / "b.png", tmp_path / "near.png"):
            with pytest.raises(DataAccessRefused):
                hidden.read_text()
        assert (tmp_path / "notes.txt").read_text() == "fine"


def test_a_linked_folder_of_linked_folders_is_followed_to_its_end(tmp_path):
    (tmp_path / "disk" / "n01").mkdir(parents=True)
    (tmp_path / "disk" / "n01" / "a.png").write_text("pixels")
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "n01").symlink_to(tmp_path / "disk" / "n01")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "val").symlink_to(tmp_path / "sorted")
    context = RunContext(tmp_path / "store", data={"imagenet": tmp_path / "data"})
    with no_data(context), pytest.raises(DataAccessRefused):
        (tmp_path / "disk" / "n01" / "a.png").read_text()


PROGRAMS: dict[str, Callable[[str], object]] = {
    "subprocess": lambda path: subprocess.run(["cat", path]),
    "a shell": lambda path: subprocess.run(f"cat {path}", shell=True),
    "python": lambda path: subprocess.run([sys.executable, "-c", f"print(open({path!r}))"]),
    "a compiler": lambda path: subprocess.run(["gcc", "-E", path]),
    "os.system": lambda path: os.system(f"cat {path}"),
    "os.popen": lambda path: os.popen(f"cat {path}"),
    "os.posix_spawn": lambda path: os.posix_spawn("/bin/cat", ["cat", path], {}),
    "os.execv": lambda path: os.execv("/bin/cat", ["cat", path]),
    "multiprocessing": lambda path: multiprocessing.get_context("spawn").Process(target=open).start(),
}


@pytest.mark.parametrize("start", PROGRAMS.values(), ids=PROGRAMS)
def test_no_program_is_started_that_could_read_the_data(data, context, start):
    with no_data(context), pytest.raises(DataAccessRefused, match=r"tried to start [a-z]\w*"):
        start(str(data / "a.png"))


def test_a_forked_process_is_guarded_as_its_parent(data, context):
    with no_data(context):
        child = os.fork()
        if not child:
            try:
                (data / "a.png").read_bytes()
            except DataAccessRefused:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_libraries_are_found_as_ever_and_an_import_may_start_programs(context):
    with no_data(context):
        assert ctypes.util.find_library("c")
    with no_data(context, programs=True):
        subprocess.run(["true"], check=True)


def test_a_store_and_weights_inside_of_a_data_folder_can_be_used(tmp_path):
    context = RunContext(tmp_path / "store", data={"images": tmp_path})
    (tmp_path / "a.png").write_text("pixels")
    (tmp_path / "store").mkdir()
    with no_data(context):
        (tmp_path / "store" / "artifact").write_text("made")
        with pytest.raises(DataAccessRefused):
            (tmp_path / "a.png").read_text()


def test_the_embedded_digits_are_protected(tmp_path):
    from sklearn.datasets import load_digits

    with no_data(RunContext(tmp_path)), pytest.raises(DataAccessRefused):
        load_digits()
    assert len(load_digits().target) == 1797
