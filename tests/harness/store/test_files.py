"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import multiprocessing
import os
import threading

import pytest

from harness.store.files import locked, read_mapping, write_bytes, write_json, write_text


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("durable", [True, False])
def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path, durable):
    write_text(tmp_path / "new" / "a.txt", "größer", durable=durable)
    write_bytes(tmp_path / "new" / "b", b"\x00\xff", durable=durable)
    write_json(tmp_path / "new" / "c.json", {"x": [1, 2.5]}, durable=durable)
    assert (tmp_path / "new" / "a.txt").read_bytes() == "größer".encode()
    assert (tmp_path / "new" / "b").read_bytes() == b"\x00\xff"
    assert read_mapping(tmp_path / "new" / "c.json") == {"x": [1, 2.5]}
    assert names_in(tmp_path / "new") == ["a.txt", "b", "c.json"]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_what_is_no_json_writes_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert names_in(tmp_path) == []


def test_a_link_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "there" / "file.txt")
    write_text(tmp_path / "link.txt", "x")
    assert (tmp_path / "there" / "file.txt").read_text() == "x"
    assert (tmp_path / "link.txt").is_symlink()


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "hello")
    reader.join(10)
    assert read == ["hello"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("content", [None, "", "{", "\udcff", "[]", "null", "3", "[" * 9999])
def test_a_file_that_is_missing_or_holds_no_object_reads_as_empty(tmp_path, content):
    file = tmp_path / "a.json"
    if content is not None:
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert read_mapping(file) == {}


def _count(lock, file, times):
    for _ in range(times):
        with locked(lock):
            file.write_text(str(int(file.read_text()) + 1))


def test_a_lock_keeps_two_processes_apart(tmp_path):
    lock, file = tmp_path / "new" / "a.lock", tmp_path / "count"
    file.write_text("0")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count, args=(lock, file, 200)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert file.read_text() == "400"


def test_a_lock_is_free_after_an_error(tmp_path):
    with pytest.raises(ValueError), locked(tmp_path / "a.lock"):
        raise ValueError
    with locked(tmp_path / "a.lock"):
        pass
